"""Real small networks and data for the rules about Audits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alone import NO_TRIALS, recalibrate_alone
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.results import Audit, Finding

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def codes(audit: Audit) -> dict[str, Finding]:
    """The findings by code; every code of an Audit's own rules comes once."""
    assert len({finding.code for finding in audit.findings}) == len(audit.findings)
    return {finding.code: finding for finding in audit.findings}


def measured(model: nn.Module, *data: Tensor, **options: Any) -> dict[str, Finding]:
    """Without the trial of other preprocessing, which has tests of its own."""
    options = {"policy": NO_TRIALS} | options
    return codes(bnaudit.measure(model, TensorDataset(*data), **options))


def chain(depth: int, width: int = 32, seed: int = 0) -> nn.Sequential:
    """Linear, BatchNorm, ReLU, `depth` times: (N, width) to (N, width)."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def gaussian(n: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def exactly_calibrated(model: nn.Module, *data: Tensor) -> nn.Module:
    """Statistics that are right on these data."""
    recalibrate_alone(model, TensorDataset(*data), batch_size=100, force=True)
    return model


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in 0 to 1 and labels of the sample data."""
    with np.load(SAMPLES / "digits.npz") as file:
        x, y = file[f"x_{split}"], file[f"y_{split}"]
    return torch.from_numpy(x.reshape(-1, 1, 8, 8) / 255.0).float(), torch.from_numpy(y).long()


def digits_net(name: str | None = None) -> nn.Module:
    """The sample models' network, with the weights of a sample checkpoint."""
    sys.path.insert(0, str(SAMPLES))
    try:
        import digits as module
    finally:
        sys.path.remove(str(SAMPLES))
    model: nn.Module = module.model()
    if name is not None:
        model.load_state_dict(torch.load(SAMPLES / f"{name}.pt", weights_only=True))
    return model.eval()
