"""How a verb runs on objects: its conditions from the keywords of the Python API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.errors import InputError
from bnaudit.verbs.devices import device_of, usable_device

_AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(dtype: str) -> torch.dtype | None:
    """The dtype of autocast by its name on the command line; None for float32."""
    if dtype not in _AUTOCAST:
        raise InputError(f"dtype is {dtype!r}: give one of {', '.join(_AUTOCAST)}")
    return _AUTOCAST[dtype]


def conditions_for(
    model: nn.Module,
    forward: Callable[[nn.Module, Any], Any] | None,
    device: str | torch.device | None,
    dtype: str,
    channels_last: bool,
    seed: int,
    ranks: Ranks = ALONE,
) -> Conditions:
    """The conditions that `bnaudit.measure` describes. Raises `InputError` for what cannot be."""
    target = usable_device(device, "device") if device is not None else None
    return Conditions(
        forward or default_forward,
        target or device_of(model),
        target,
        autocast(dtype),
        channels_last,
        seed,
        ranks,
    )
