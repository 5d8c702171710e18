"""What the tests of the command line work on: a network, its weights, a folder before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"

NET = """\
import torch
from torch import nn


def model(classes=3, width=4, depth=1):
    layers = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(depth):
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def no_norm():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def lazy():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))


def gives_a_dict():
    return model().state_dict()


def raises():
    raise ValueError("width must be even")


class Overflowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.second = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.first(x) / 0).mean((2, 3))


def fails(model, batch):
    raise KeyError("pixel_values")


def breaks_off():
    yield torch.zeros(8, 3, 8, 8)
    raise OSError("the disk is gone")


def bad_transform():
    return lambda image: 1 / 0


def one_argument(model):
    return model


number = 3
"""


@dataclass(frozen=True)
class Ran:
    """What a run of the command left behind: its exit code and both streams."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def network(classes: int = 3, width: int = 4) -> nn.Sequential:
    """The same as `model()` of net.py."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, every subfolder with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
