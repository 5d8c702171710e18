"""The model inside its wrappers, and the models that cannot be audited, refused by name."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from bnaudit.errors import ModelError

_FSDP = ("FullyShardedDataParallel", "FSDPModule")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DDP, AveragedModel and torch.compile wrappers.

    Raises `ModelError`, with what to do instead, for FSDP, TorchScript and exported models: their
    layers cannot be intercepted.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    while True:
        if hasattr(model, "_orig_mod"):
            model = cast(nn.Module, model._orig_mod)
        elif isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
            model = cast(nn.Module, model.module)
        else:
            break
    for name, module in model.named_modules():
        _refuse(name or "the model", module)
    return model


def _refuse(where: str, module: nn.Module) -> None:
    names = {base.__name__ for base in type(module).__mro__}
    if names & set(_FSDP):
        raise ModelError(
            f"{where} is sharded by FSDP: its layers see shards, not weights. Gather a full state "
            "dict and measure the plain model"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{where} is a TorchScript module: its layers cannot be intercepted. Measure the eager "
            "model it was made from"
        )
    if any(base.__module__.startswith("torch.export") for base in type(module).__mro__):
        raise ModelError(
            f"{where} is an exported program: its layers are one flat graph. Measure the eager "
            "model it was made from"
        )
