"""Devices: the one that is asked for, and the one where a model is."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from bnaudit.errors import InputError


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer is; the CPU for a model without any."""
    first = next(chain[Tensor](model.parameters(), model.buffers()), None)
    return first.device if first is not None else torch.device("cpu")


def usable_device(name: str | torch.device, option: str) -> torch.device:
    """The device that `name` names, "auto" the best there is. Raises `InputError` for another."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"{option} {name}: use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        count = torch.cuda.device_count()
        raise InputError(f"{option} {name}: PyTorch sees {count} CUDA devices; use {option} cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"{option} {name}: PyTorch sees no MPS device; use {option} cpu")
    return device
