"""Audits of small networks whose statistics are off by known amounts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.findings.changes import changes_between
from bnaudit.results import Audit, Changes, Difference, LayerChange

WIDTH = 6


def chain(*shifts: float) -> nn.Module:
    """BN layers in a row, each off by so many deviations of what comes to it: (N, 6) to (N, 6)."""
    norms = [nn.BatchNorm1d(WIDTH) for _ in shifts]
    offset = 0.0
    for norm, shift in zip(norms, shifts, strict=True):
        norm.get_buffer("running_mean").fill_(offset + shift)
        offset = -shift
    return nn.Sequential(*norms).eval()


def gaussian(samples: int = 400, seed: int = 0) -> Tensor:
    return torch.randn(samples, WIDTH, generator=torch.Generator().manual_seed(seed))


def measured(*shifts: float, samples: int = 400, seed: int = 0, **options: Any) -> Audit:
    """The Audit of a chain, on Gaussian samples that `seed` draws."""
    return audit_of(chain(*shifts), gaussian(samples, seed), **options)


def audit_of(model: nn.Module, *data: Tensor, **options: Any) -> Audit:
    options = {"attribute": "none", "batch_size": 100} | options
    return bnaudit.measure(model, TensorDataset(*data), **options)


def between(before: Audit, after: Audit) -> Changes:
    return changes_between(before, after, before_source="old", after_source="new")


def layer(changes: Changes, name: str) -> LayerChange:
    return next(change for change in changes.layers if change.name == name)


def shift(changes: Changes, name: str) -> Difference:
    found = layer(changes, name).output_shift
    assert found is not None
    return found


def figure(changes: Changes, name: str) -> Difference:
    return next(network.change for network in changes.network if network.figure == name)


def figures(changes: Changes) -> list[Difference]:
    """All that are judged: the output shifts and the figures of the network."""
    shifts = [change.output_shift for change in changes.layers if change.output_shift is not None]
    return [*shifts, *(network.change for network in changes.network)]
