"""Whether a layer's statistics are a mixture of its parent's and something else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bnaudit.results.lineage import Mixture
from bnaudit.results.state import LayerState
from bnaudit.stats import mixture
from bnaudit.stats.mixture import Statistics
from bnaudit.stats.moving_average import USUAL_MOMENTA

CLOSE_FIT = 0.05
"""What a mixture may leave of the distance to the parent. One of two files leaves rounding, about
1e-6; the same training with too small a momentum, .006 to .027 (`sample_models/lagging_ema.pt`
beside `healthy.pt`); statistics of another training, .5 and more."""

SMALLEST_DISTANCE = 1e-3
"""No mixture is looked for closer to a parent: storing in half precision makes that much."""

FEWEST_CHANNELS = 4
"""One share always fits one channel, and nearly fits two."""

LEAST_GAMMA = 0.01
"""Channels with |γ| below this share of the layer's largest are left out: pruned ones, whose
statistics mean nothing, and which give less than 1e-4 of the power that the largest gives."""

MOST_FORWARDS = 30
"""The most batches of zeros that are looked for where no counter tells them. Of many powers one is
near any number."""

SAME_POWER = 1e-3
"""How near a power has to be, relatively."""

FINEST_MOMENTUM = 0.01
"""The least momentum whose powers are looked for where no counter tells the batches: those of .001
are as near to each other as `SAME_POWER`."""

_WHOLE = 0.98
"""A share above which a mixture is one of its parts."""


def mixture_of(
    child: LayerState, parent: LayerState, parents: Sequence[LayerState | None]
) -> Mixture | None:
    """The mixture that leaves least, where it leaves no more than `CLOSE_FIT` of the distance.

    `parents`: every parent's layer, None where a parent has none; `parent`: the nearest of them.
    Pruned channels (`LEAST_GAMMA`) are left out.
    """
    kept = _not_pruned(child)
    child, parent = _channels(child, kept), _channels(parent, kept)
    alike = [x for x in parents if x is not None and x.channels == len(kept)]
    every = [_statistics(_channels(one, kept)) for one in alike]
    after, before = _statistics(child), _statistics(parent)
    usable = all(_is_usable(statistics, child.eps) for statistics in (after, before, *every))
    if child.channels < FEWEST_CHANNELS or not usable:
        return None
    distance = min(mixture.left_over(after, one, child.eps) for one in (before, *every))
    if not distance > SMALLEST_DISTANCE:
        return None
    fits = [
        _with_initial(child, before),
        *_zero_batches(child, parent),
    ]
    if 1 < len(every) == len(parents):
        fits.append(_of_parents(child, every))
    close = [fit for fit in fits if fit is not None and fit.residual <= CLOSE_FIT * distance]
    return min(close, key=lambda fit: fit.residual, default=None)


def _with_initial(child: LayerState, parent: Statistics) -> Mixture | None:
    zeros = np.zeros(child.channels)
    other = (zeros, zeros + 1)
    share = mixture.share_of(_statistics(child), parent, other, child.eps)
    if not 0 < share < _WHOLE:
        return None
    shares = (1 - share, share)
    fit = mixture.combined(shares, (parent, other))
    return Mixture("initial", shares, mixture.left_over(_statistics(child), fit, child.eps))


def _zero_batches(child: LayerState, parent: LayerState) -> Iterator[Mixture]:
    """Batches of zeros, and batches without variance but with a mean: behind a bias.

    Variances that all shrink alike may also come from inputs on another scale. So what is left of
    the parent has to be what that many batches leave, and where the counters do not say how many,
    the means have to shrink with the variances.
    """
    after, before = _statistics(child), _statistics(parent)
    zeros = np.zeros(child.channels)
    share = mixture.share_of(after, before, (zeros, zeros), child.eps)
    forwards = _forwards(1 - share, child, parent)
    if forwards is not None:
        fit = mixture.combined((1 - share,), (before,))
        residual = mixture.left_over(after, fit, child.eps)
        yield Mixture("zero-batches", (1 - share, share), residual, *forwards)
    share = mixture.variance_share(after, before, child.eps)
    forwards = _forwards(1 - share, child, parent)
    if forwards is not None and _passes(child, parent) is not None:
        residual = mixture.left_over(after, (after[0], (1 - share) * before[1]), child.eps)
        yield Mixture("zero-batches", (1 - share, share), residual, *forwards)


def _forwards(kept: float, child: LayerState, parent: LayerState) -> tuple[int, float] | None:
    """k and the momentum with kept = (1 − momentum)^k; None where there is no such."""
    passes = _passes(child, parent)
    if not 0 < kept < 1 or (passes is not None and not passes >= 1):
        return None
    momenta = USUAL_MOMENTA if child.momentum is None else (child.momentum,)
    for momentum in momenta:
        if not 0 < momentum < 1 or (passes is None and momentum < FINEST_MOMENTUM):
            continue
        sought = math.log(kept) / math.log1p(-momentum) if passes is None else passes
        forwards = round(sought)
        fits = abs((1 - momentum) ** forwards / kept - 1) <= SAME_POWER
        if fits and forwards >= 1 and (passes is not None or forwards <= MOST_FORWARDS):
            return forwards, momentum
    return None


def _passes(child: LayerState, parent: LayerState) -> float | None:
    if child.num_batches_tracked is None or parent.num_batches_tracked is None:
        return None
    return child.num_batches_tracked - parent.num_batches_tracked


def _of_parents(child: LayerState, parents: Sequence[Statistics]) -> Mixture | None:
    after = _statistics(child)
    if 2 * child.channels < FEWEST_CHANNELS * len(parents):
        return None
    shares = mixture.shares_of(after, parents, child.eps)
    if max(shares) >= _WHOLE:
        return None
    fit = mixture.combined(shares, parents)
    return Mixture("parents", shares, mixture.left_over(after, fit, child.eps))


def _not_pruned(layer: LayerState) -> NDArray[np.bool_]:
    """Which channels count: all of them where γ is absent, unknown or 0 everywhere."""
    size = np.ones(layer.channels) if layer.gamma is None else np.abs(layer.gamma)
    largest = np.max(size, initial=0.0)
    if not 0 < largest < np.inf:
        return np.ones(layer.channels, dtype=bool)
    kept: NDArray[np.bool_] = size >= LEAST_GAMMA * largest
    return kept


def _channels(layer: LayerState, kept: NDArray[np.bool_]) -> LayerState:
    """The layer with these of its channels; γ and β, which are not looked at, are left out."""
    return replace(
        layer,
        running_mean=layer.running_mean[kept],
        running_var=layer.running_var[kept],
        gamma=None,
        beta=None,
    )


def _is_usable(statistics: Statistics, eps: float) -> bool:
    mean, var = statistics
    return bool(np.isfinite(mean).all() and np.isfinite(var).all() and (var + eps > 0).all())


def _statistics(layer: LayerState) -> Statistics:
    return layer.running_mean, layer.running_var
