"""Does a module of unknown kind compute what a frozen BatchNorm computes?

Any module with `running_mean` and `running_var` may be a BatchNorm layer; its own output on the
first batch tells. The channel axis, eps and the affine map are found from it where they can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer

USUAL_EPS = (1e-5, 1e-3, 1e-6, 1e-12, 0.0)
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@dataclass(frozen=True)
class Probe:
    """What was found: the channel axis and eps under which the module is (x − m̂)/√(v̂ + ε)·γ + β."""

    channel_axis: int
    eps: float


def probe(layer: BNLayer, x: Tensor, y: Tensor) -> Probe | None:
    """Fit the layer's output `y` to its input `x`; None where no axis and eps fit.

    The module's own eps is tried alone where it has one, the usual values otherwise.
    """
    if y.shape != x.shape or not y.is_floating_point():
        return None
    mean, var = (t.detach().double() for t in layer.estimated)
    if mean.dim() != 1 or mean.shape != var.shape:
        return None
    gamma = _vector(layer, "weight", torch.ones_like(mean))
    beta = _vector(layer, "bias", torch.zeros_like(mean))
    tolerance = TOLERANCE.get(y.dtype, 1e-4)
    for axis in (1, x.dim() - 1):
        if x.shape[axis] != len(mean):
            continue
        rows = x.detach().double().movedim(axis, -1)
        target = y.detach().double().movedim(axis, -1)
        for eps in (layer.eps,) if layer.eps is not None else USUAL_EPS:
            fitted = (rows - mean) * (var + eps).rsqrt() * gamma + beta
            scale = target.abs().amax().clamp(min=1.0)
            if bool(((fitted - target).abs().amax() / scale) < tolerance):
                return Probe(axis, eps)
    return None


def _vector(layer: BNLayer, name: str, default: Tensor) -> Tensor:
    value = getattr(layer.module, name, None)
    if isinstance(value, Tensor) and value.numel() == default.numel():
        return value.detach().double().flatten()
    return default
