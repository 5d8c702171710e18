"""Networks and data of the tests of domains: the sample model, and a shared head."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@dataclass(frozen=True)
class Answer:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str


@cache
def digits_module() -> Any:
    """sample_models/digits.py."""
    spec = importlib.util.spec_from_file_location("digits_of_domains", SAMPLES / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits_net() -> nn.Module:
    """The healthy sample model."""
    model: nn.Module = digits_module().model()
    model.load_state_dict(torch.load(SAMPLES / "healthy.pt", weights_only=True))
    return model.eval()


@cache
def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in 0 to 1, and labels."""
    with np.load(SAMPLES / "digits.npz") as arrays:
        to_tensor = digits_module().transform()
        images = torch.stack([to_tensor(image) for image in arrays[f"x_{split}"]])
        return images, torch.tensor(arrays[f"y_{split}"]).long()


def bright(images: Tensor) -> Tensor:
    """As digits.brighter makes them."""
    return (images + 0.3).clamp(0, 1)


def hazy(images: Tensor) -> Tensor:
    """As digits.low_contrast makes them."""
    return 0.5 * images + 0.25


def as_data(images: Tensor, labels: Tensor | None = None) -> TensorDataset:
    return TensorDataset(images) if labels is None else TensorDataset(images, labels)


class Levels(nn.Module):
    """A head shared over two feature levels of very different scale, as a detector's."""

    def __init__(self, scale: float = 6.0, offset: float = 3.0) -> None:
        super().__init__()
        self.fine = nn.Conv2d(1, 8, 3, padding=1)
        self.coarse = nn.Conv2d(1, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(16, 10)
        with torch.no_grad():
            self.coarse.weight.mul_(scale)
            self.coarse.bias.add_(offset)

    def norms(self) -> tuple[nn.Module, nn.Module]:
        """The one of each level: the same."""
        return self.norm, self.norm

    def forward(self, x: Tensor) -> Tensor:
        """Class scores from the maxima over both levels."""
        inputs = self.fine(x), self.coarse(functional.avg_pool2d(x, 2))
        maps = [n(self.conv(i)) for n, i in zip(self.norms(), inputs, strict=True)]
        return self.last(torch.cat([functional.relu(m).amax((2, 3)) for m in maps], 1))


class SeparateLevels(Levels):
    """The same weights with a BatchNorm for each level: the oracle of statistics for each call."""

    def __init__(self, other: Levels) -> None:
        super().__init__()
        self.load_state_dict(other.state_dict())
        self.second = nn.BatchNorm2d(8)
        self.second.load_state_dict(other.norm.state_dict())

    def norms(self) -> tuple[nn.Module, nn.Module]:
        """One of each level's own."""
        return self.norm, self.second


def trained(model: nn.Module, epochs: int) -> nn.Module:
    """Trained on the digits."""
    images, labels = digits("train")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - 31, 32):
            chosen = order[start : start + 32]
            optimiser.zero_grad()
            functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimiser.step()
    return model.eval()


class Twice(nn.Module):
    """Looks a second time at bright batches: not all make the same calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        for _ in range(2 if float(x.mean()) < 0.5 else 1):
            x = torch.relu(self.norm(self.conv(x)))
        return self.last(x.flatten(1))


@cache
def trained_levels() -> Levels:
    torch.manual_seed(0)
    return trained(Levels(), 12)  # type: ignore[return-value]


def accuracy_and_loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Of a plain evaluation."""
    with torch.no_grad():
        scores = model.eval()(images)
    right = (scores.argmax(1) == labels).double().mean()
    return float(right), float(functional.cross_entropy(scores, labels))
