"""Independent of bnaudit: the figures of an Audit by plain hooks and NumPy in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Figures:
    """What the definitions say of one layer; arrays are (C,) float64."""

    mean: np.ndarray
    var: np.ndarray
    d2: np.ndarray
    mean_part: float
    scale_part: float
    total_shift: float
    output_shift: float
    discrepancy: float
    batch_noise: float
    mean_norm: float
    std_norm: float


def inputs_of(
    model: nn.Module, batches: Sequence[Tensor], names: Sequence[str]
) -> dict[str, list[np.ndarray]]:
    """What each named layer sees in `eval()`, one (C, values) array a batch, in float64."""
    model = copy.deepcopy(model).eval()
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            x = args[0] if args else kwargs["input"]
            seen[name].append(x.detach().double().transpose(0, 1).flatten(1).numpy().copy())

        return hook

    for name in names:
        model.get_submodule(name).register_forward_pre_hook(record(name), with_kwargs=True)
    with torch.no_grad():
        for batch in batches:
            model(batch)
    return seen


def figures(
    model: nn.Module, batches: Sequence[Tensor], name: str, full: int | None = None
) -> Figures:
    """The layer's figures over `batches`; those of `full` samples (default: all) are compared."""
    layer: Any = model.get_submodule(name)
    seen = inputs_of(model, batches, [name])[name]
    x = np.concatenate(seen, axis=1)
    em, ev = (b.double().numpy() for b in (layer.running_mean, layer.running_var))
    gamma = np.ones_like(em) if layer.weight is None else layer.weight.detach().double().numpy()

    def d2(mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        s, deployed = np.sqrt(var + layer.eps), np.sqrt(ev + layer.eps)
        return ((mean - em) / deployed) ** 2, (np.sqrt(var) / deployed - np.sqrt(var) / s) ** 2

    of_mean, of_scale = d2(x.mean(1), x.var(1))
    total = of_mean + of_scale
    whole = [
        b for b, batch in zip(seen, batches, strict=True) if len(batch) == (full or len(batch))
    ]
    discrepancy2 = float(np.mean([sum(d2(b.mean(1), b.var(1))) for b in whole]))
    covered = np.concatenate(whole, axis=1)
    own_shift2 = float(sum(d2(covered.mean(1), covered.var(1))).mean())
    return Figures(
        mean=x.mean(1),
        var=x.var(1),
        d2=total,
        mean_part=float(np.sqrt(of_mean.mean())),
        scale_part=float(np.sqrt(of_scale.mean())),
        total_shift=float(np.sqrt(total.mean())),
        output_shift=float(np.sqrt((gamma**2 * total).sum() / (gamma**2).sum())),
        discrepancy=float(np.sqrt(discrepancy2)),
        batch_noise=float(np.sqrt(max(0.0, discrepancy2 - own_shift2))),
        mean_norm=float(np.linalg.norm(em - x.mean(1))),
        std_norm=float(np.linalg.norm(np.sqrt(ev) - np.sqrt(x.var(1)))),
    )


def with_batch_statistics(model: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """Outputs where only the BN layers are in train mode: PyTorch's own mini-batch statistics."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
            module.momentum = 0.0
    with torch.no_grad():
        return [model(batch) for batch in batches]
