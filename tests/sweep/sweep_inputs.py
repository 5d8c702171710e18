"""What the tests of sweeps work on: the sample models and the digits, also with pixels moved."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
if str(SAMPLES) not in sys.path:
    sys.path.append(str(SAMPLES))

from digits import model as digits_net  # noqa: E402
from train import load_split  # noqa: E402


def pixels(split: str, samples: int | None = None) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in 0 to 1, and their labels."""
    x, y = load_split(SAMPLES / "digits.npz", split)
    return x[:samples], y[:samples]


def digits(split: str, samples: int | None = None) -> TensorDataset:
    """The digits of a part of the sample models' data."""
    return TensorDataset(*pixels(split, samples))


def brighter(split: str, samples: int | None = None) -> TensorDataset:
    """The same, overexposed: the network's statistics do not fit them."""
    x, y = pixels(split, samples)
    return TensorDataset((x + 0.3).clamp(0, 1), y)


def sample_model(name: str) -> nn.Module:
    """One of the sample models."""
    model = digits_net()
    model.load_state_dict(torch.load(SAMPLES / f"{name}.pt"))
    return model.eval()
