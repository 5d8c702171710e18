"""Helpers: small networks whose estimates are off, data for them, and results as plain figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


def images(n: int) -> TensorDataset:
    """Skewed images (n, 3, 8, 8) of four classes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, 8, 8, generator=generator)
    return TensorDataset(x + 0.4 * x.square() + 0.2, torch.randint(0, 4, (n,), generator=generator))


def classifier() -> nn.Sequential:
    """Three layers whose averages have seen three mini-batches: (N, 3, 8, 8) to (N, 4)."""
    torch.manual_seed(0)
    return _lagging(
        nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
            *(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        )
    )


class Reusing(nn.Module):
    """One layer is called three times in a forward, behind itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.conv = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.bn, self.head = nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 4)."""
        x = self.first(x)
        for _ in range(3):
            x = self.conv(self.bn(x).relu())
        return self.head(x.mean((2, 3)))


def reusing() -> Reusing:
    """The same with averages that lag."""
    return _lagging(Reusing())


def regressor() -> nn.Sequential:
    """An output that is no class score: (N, 3, 8, 8) to (N, 5, 8, 8)."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1)
    return _lagging(nn.Sequential(*layers))


def _lagging(model: Any) -> Any:
    model.train()
    for _ in range(3):
        model(torch.randn(16, 3, 8, 8))
    return model.eval()


def figures(result: Any, without: tuple[str, ...] = ("run_time",)) -> dict[str, Any]:
    """Every figure and word of a result's document by its path, but for the fields `without`."""
    return dict(_flat(json.loads(result.to_json()), "", without))


def _flat(value: Any, path: str, without: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key not in without:
                yield from _flat(one, f"{path}.{key}", without)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _flat(one, f"{path}[{number}]", without)
    else:
        yield path, value
