"""Does a module of unknown kind normalise by its running statistics, and with which eps and γ?

Any module with `running_mean` and `running_var` may be a BatchNorm layer; its own output on the
first batch tells, once with its own statistics and once with others put in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer
from bnaudit.engine.ranks import Ranks
from bnaudit.engine.state import statistics

USUAL_EPS = (1e-5, 1e-3, 1e-6, 1e-12, 0.0)
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@dataclass(frozen=True)
class Probe:
    """The module computes (x − m̂)/√(v̂ + ε)·γ + β along this axis. `gamma` (C,) float64, CPU."""

    channel_axis: int
    eps: float
    gamma: Tensor


def probe(layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Probe | None:
    """Fit the layer to its own outputs; None where no axis and eps fit.

    γ and β are read off the output, whatever the module calls them. The module's own eps is tried
    alone where it has one, the usual values otherwise. The second output, under shifted and
    stretched statistics, proves that the statistics are used at all.
    """
    mean, var = layer.estimated
    if mean.dim() != 1 or mean.shape != var.shape:
        return None
    other_mean, other_var = mean + var.clamp(min=0).sqrt(), 4 * var + 1
    own = forward(x.clone())
    with statistics(layer, other_mean, other_var):
        other = forward(x.clone())
    if not all(isinstance(y, Tensor) and y.shape == x.shape for y in (own, other)):
        return None
    tolerance = TOLERANCE.get(own.dtype, 1e-4)
    m, v, other_m, other_v = (t.detach().double() for t in (mean, var, other_mean, other_var))
    for axis in dict.fromkeys((1, x.dim() - 1)):
        if x.shape[axis] != len(m):
            continue
        rows, y, other_y = (
            t.detach().double().movedim(axis, -1).flatten(0, -2) for t in (x, own, other)
        )
        for eps in (layer.eps,) if layer.eps is not None else USUAL_EPS:
            normalised = (rows - m) * (v + eps).rsqrt()
            other_normalised = (rows - other_m) * (other_v + eps).rsqrt()
            gamma = _slope(torch.cat([normalised, other_normalised]), torch.cat([y, other_y]))
            beta = y.mean(0) - gamma * normalised.mean(0)
            if _close(normalised * gamma + beta, y, tolerance) and _close(
                other_normalised * gamma + beta, other_y, tolerance
            ):
                return Probe(axis, eps, gamma.cpu())
    return None


def settled(layer: BNLayer, forward: Callable[[Tensor], Any], x: Any) -> bool:
    """Whether the layer can be measured; one of unknown kind is settled by its first input.

    Where it cannot, its `note` says why from then on.
    """
    if layer.verified:
        return True
    if layer.note is not None:
        return False
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.dim() >= 2):
        layer.note = "it is not called with one tensor (N, C, …)"
        return False
    if not bool(x.isfinite().all()):  # it would not fit; the moments say so with the layer's name
        return True
    found = probe(layer, forward, x)
    if found is None and layer.trusted:
        layer.channel_axis = 1 if x.shape[1] == layer.channels else x.dim() - 1
        layer.verified = True
        return True
    if found is None:
        layer.note = (
            "its output on the first batch is not (x − running_mean)/√(running_var + eps)·γ + β "
            "for any usual eps"
        )
        return False
    layer.probed_gamma = found.gamma
    if layer.eps is None:
        layer.eps, layer.eps_source = found.eps, "probed"
    layer.channel_axis = found.channel_axis
    layer.verified = True
    return True


@dataclass(frozen=True)
class _Settled:
    """What a layer's first input told of it."""

    verified: bool
    note: str | None
    eps: float | None
    eps_source: Literal["module", "probed"]
    channel_axis: int
    gamma: Tensor | None


def agree(layers: Iterable[BNLayer], ranks: Ranks) -> None:
    """From here on the layers are on every rank what they are on the first that settled them.

    A rank may have no batch, or none that reaches a layer.
    """
    if ranks.size == 1:
        return
    by_name = {layer.name: layer for layer in layers}
    own = {
        name: _Settled(
            *(layer.verified, layer.note, layer.eps, layer.eps_source, layer.channel_axis),
            layer.probed_gamma,
        )
        for name, layer in by_name.items()
        if layer.verified or layer.note is not None
    }
    for theirs in reversed(ranks.gather(own)):
        for name, settled_there in theirs.items():
            layer = by_name[name]
            layer.verified, layer.note = settled_there.verified, settled_there.note
            layer.eps, layer.eps_source = settled_there.eps, settled_there.eps_source
            layer.channel_axis = settled_there.channel_axis
            layer.probed_gamma = settled_there.gamma


def _slope(x: Tensor, y: Tensor) -> Tensor:
    """The slope of the least-squares line of each column, (M, C) → (C,)."""
    dx, dy = x - x.mean(0), y - y.mean(0)
    spread = dx.square().sum(0)
    return torch.where(spread > 0, (dx * dy).sum(0) / spread.clamp(min=1e-300), 0.0)


def _close(fitted: Tensor, y: Tensor, tolerance: float) -> bool:
    scale = y.abs().amax().clamp(min=1.0)
    return bool((fitted - y).abs().amax() / scale < tolerance)
