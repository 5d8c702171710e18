"""Small networks that are really trained, and what the rules say of the state they are left in."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from bnaudit.engine.layers import find_layers
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results.findings import Finding
from bnaudit.results.state import State
from bnaudit.verbs.stored_state import state_of_model

WIDTH, CLASSES = 8, 3


class Block(nn.Sequential):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, channels: int, *, bias: bool, **settings: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, WIDTH, 3, padding=1, bias=bias)
        self.bn = nn.BatchNorm2d(WIDTH, **settings)
        self.relu = nn.ReLU()


class Net(nn.Sequential):
    """Three blocks `a`, `b`, `c`, pooling, a linear layer: layers a.bn, b.bn and c.bn."""

    def __init__(self, *, bias: bool = False, **settings: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = Block(3, bias=bias, **settings)
        self.b = Block(WIDTH, bias=bias, **settings)
        self.c = Block(WIDTH, bias=bias, **settings)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(WIDTH, CLASSES)


LAYERS = ("a.bn", "b.bn", "c.bn")


def batches(count: int, *, size: int = 16, scale: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (size, 3, 8, 8) and classes that their colours tell."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(size, 3, 8, 8, generator=generator)
        labels = torch.randint(0, CLASSES, (size,), generator=generator)
        x = x + 0.5 * functional.one_hot(labels, CLASSES)[:, :, None, None]
        yield scale * x, labels


def train(
    model: nn.Module,
    steps: int,
    *,
    optimiser: torch.optim.Optimizer | None = None,
    scale: float = 1.0,
) -> nn.Module:
    """The model after so many steps of SGD."""
    optimiser = optimiser or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    model.train()
    for x, labels in batches(steps, scale=scale):
        optimiser.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return model


def state_of(model: nn.Module, source: str = "net.pt") -> State:
    """What the model stores in its BatchNorm layers."""
    return state_of_model(find_layers(model), source)


def findings_of(model: nn.Module | State, policy: Policy = DEFAULT) -> dict[str, Finding]:
    """By code, what all rules find; a code that is found twice is an error here."""
    state = model if isinstance(model, State) else state_of(model)
    found = conclude([state], policy)
    assert len({finding.code for finding in found}) == len(found)
    return {finding.code: finding for finding in found}
