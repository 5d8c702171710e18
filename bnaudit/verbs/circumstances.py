"""What a result says of the circumstances: versions, device, dtype."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from bnaudit._version import __version__
from bnaudit.engine.conditions import Conditions


def about(model: nn.Module, conditions: Conditions) -> dict[str, Any]:
    """The fields `versions`, `device` and `dtype` of a result."""
    return {
        "versions": _versions(),
        "device": _device_name(conditions.device),
        "dtype": str(conditions.autocast or _dtype_of(model)).removeprefix("torch."),
    }


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _versions() -> dict[str, str]:
    return {
        "bnaudit": __version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "python": platform.python_version(),
    }
