"""Whether a layer's statistics are a mixture of its parent's and something else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bnaudit.results.lineage import Mixture
from bnaudit.results.state import LayerState
from bnaudit.stats import mixture
from bnaudit.stats.mixture import Statistics

CLOSE_FIT = 0.05
"""What a mixture may leave of the distance to the parent. One of two files leaves rounding, about
1e-6; the same training with too small a momentum, .006 to .027 (`sample_models/lagging_ema.pt`
beside `healthy.pt`); statistics of another training, .5 and more."""

SMALLEST_DISTANCE = 1e-3
"""No mixture is looked for closer to a parent: storing in half precision makes that much."""

FEWEST_CHANNELS = 4
"""One share always fits one channel, and nearly fits two."""

USUAL_MOMENTA = (0.1, 0.03, 0.01)
"""PyTorch's default, YOLO's, and that of networks ported from TensorFlow: no checkpoint stores it.
"""

MOST_FORWARDS = 30
"""The most batches of zeros that are looked for where no counter tells them. Of many powers one is
near any number."""

SAME_POWER = 1e-3
"""How near a power has to be, relatively."""

_WHOLE = 0.98
"""A share above which a mixture is one of its parts."""


def mixture_of(
    child: LayerState, parent: LayerState, parents: Sequence[LayerState | None]
) -> Mixture | None:
    """The mixture that leaves least, where it leaves no more than `CLOSE_FIT` of the distance.

    `parents`: every parent's layer, None where a parent has none; `parent`: the nearest of them.
    """
    after, before = _statistics(child), _statistics(parent)
    alike = [one for one in parents if one is not None and one.channels == child.channels]
    every = [_statistics(one) for one in alike]
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
    fit = mixture.mixed(shares, (parent, other))
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
        fit = mixture.mixed((1 - share,), (before,))
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
        if not 0 < momentum < 1:
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
    fit = mixture.mixed(shares, parents)
    return Mixture("parents", shares, mixture.left_over(after, fit, child.eps))


def _is_usable(statistics: Statistics, eps: float) -> bool:
    mean, var = statistics
    return bool(np.isfinite(mean).all() and np.isfinite(var).all() and (var + eps > 0).all())


def _statistics(layer: LayerState) -> Statistics:
    return layer.running_mean, layer.running_var
