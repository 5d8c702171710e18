"""Helpers: small networks whose estimates are off, data for them, and results as plain figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

ROUNDING = 1e-9


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


class OwnNorm(nn.Module):
    """A BatchNorm of somebody's own: only its outputs show that it is one.

    `eps_name`: what it calls its eps; any other name than "eps" leaves it to be found out.
    """

    def __init__(self, channels: int, eps_name: str = "eps") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, channels))
        self.bias = nn.Parameter(torch.linspace(-0.2, 0.2, channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.linspace(-0.3, 0.3, channels))
        self.register_buffer("running_var", torch.linspace(0.6, 1.4, channels))
        self._eps_name = eps_name
        setattr(self, eps_name, 1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        scale = self.weight * (self.running_var + getattr(self, self._eps_name)).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def of_unknown_kind() -> nn.Sequential:
    """Two layers that have to be probed, of the second one the eps as well."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), OwnNorm(6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3), OwnNorm(8, "tiny"), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()


class Routing(nn.Module):
    """A batch whose first label is even takes one layer of unknown kind, any other the second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.bn_even, self.bn_odd = OwnNorm(6), OwnNorm(6, "tiny")
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(N, 3, 8, 8) and (N,) to (N, 4)."""
        bn = self.bn_odd if int(labels[0]) % 2 else self.bn_even
        return self.head(bn(self.first(x)).relu().mean((2, 3)))


class Remembering(nn.Module):
    """Its state dict holds more than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 4)."""
        return self.inner(x)

    def get_extra_state(self) -> dict[str, Any]:
        """What PyTorch puts under `_extra_state`."""
        return {"version": 3, "scales": [0.5, 2.0]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Nothing is kept of it."""


def _lagging(model: Any) -> Any:
    model.train()
    for _ in range(3):
        model(torch.randn(16, 3, 8, 8))
    return model.eval()


def figures(result: Any, without: tuple[str, ...] = ("run_time",)) -> dict[str, Any]:
    """Every figure and word of a result's document by its path, but for the fields `without`."""
    return dict(_flat(json.loads(result.to_json()), "", without))


def assert_same(one: Any, other: Any, without: tuple[str, ...] = ("run_time",)) -> None:
    """The words of two results are the same, and their figures but for rounding."""
    a, b = figures(one, without), figures(other, without)
    assert a.keys() == b.keys()
    assert len(a) > 100
    for path, value in a.items():
        if isinstance(value, float):
            assert b[path] == pytest.approx(value, rel=1e-6, abs=ROUNDING), path
        else:
            assert b[path] == value, path


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
