"""Whether a layer's statistics are a mixture of its parent's and something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnaudit.results.lineage import MixedWith, Mixture
from bnaudit.results.state import LayerState
from bnaudit.stats import mixture
from bnaudit.stats.mixture import Statistics

CLOSE_FIT = 0.02
"""What a mixture may leave of the distance to the parent. A mixture leaves rounding, about 1e-6;
statistics that are only correlated with one leave most of it."""

SMALLEST_DISTANCE = 1e-3
"""No mixture is looked for closer to the parent: storing in half precision makes that much."""

FEWEST_CHANNELS = 4
"""One share always fits one channel, and nearly fits two."""

USUAL_MOMENTUM = 0.1
"""PyTorch's default, for a checkpoint does not store it."""

_WHOLE = 0.98
"""A share above which a mixture of parents is one of them."""


def mixture_of(
    child: LayerState, parent: LayerState, parents: Sequence[LayerState | None]
) -> Mixture | None:
    """The mixture that leaves least, where it leaves no more than `CLOSE_FIT` of the distance.

    `parents`: every parent's layer, None where a parent has none; `parent`: the nearest of them.
    """
    after, before = _statistics(child), _statistics(parent)
    every = [_statistics(one) for one in parents if one is not None]
    finite = all(np.isfinite(part).all() for pair in (after, before, *every) for part in pair)
    if child.channels < FEWEST_CHANNELS or not finite or (before[1] + parent.eps <= 0).any():
        return None
    distance = mixture.left_over(after, before, child.eps)
    if not distance > SMALLEST_DISTANCE:
        return None
    zeros = np.zeros(child.channels)
    fits = [
        _with(child, before, (zeros, zeros + 1), "initial"),
        _with(child, before, (zeros, zeros), "zero-batches"),
        _constant_batches(child, parent),
    ]
    if 1 < len(every) == len(parents) and all(len(one[0]) == child.channels for one in every):
        fits.append(_of_parents(child, every))
    close = [fit for fit in fits if fit is not None and fit.residual <= CLOSE_FIT * distance]
    return min(close, key=lambda fit: fit.residual, default=None)


def _with(
    child: LayerState, parent: Statistics, other: Statistics, kind: MixedWith
) -> Mixture | None:
    share = mixture.share_of(_statistics(child), parent, other, child.eps)
    if not 0 < share < 1:
        return None
    shares = (1 - share, share)
    fit = mixture.mixed(shares, (parent, other))
    return Mixture(kind, shares, mixture.left_over(_statistics(child), fit, child.eps))


def _constant_batches(child: LayerState, parent: LayerState) -> Mixture | None:
    """Batches without variance but with a mean, as zeros have behind a convolution with a bias.

    Variances that all shrink alike may also come from inputs on another scale, so the counter has
    to bear it out: 0.9^n for n more batches.
    """
    if child.num_batches_tracked is None or parent.num_batches_tracked is None:
        return None
    batches = child.num_batches_tracked - parent.num_batches_tracked
    after, before = _statistics(child), _statistics(parent)
    share = mixture.variance_share(after, before, child.eps)
    momentum = USUAL_MOMENTUM if child.momentum is None else child.momentum
    if batches < 1 or not 0 < share < 1 or abs((1 - momentum) ** batches - (1 - share)) > 1e-3:
        return None
    fit = (after[0], (1 - share) * before[1])
    residual = mixture.left_over(after, fit, child.eps)
    return Mixture("zero-batches", (1 - share, share), residual)


def _of_parents(child: LayerState, parents: Sequence[Statistics]) -> Mixture | None:
    after = _statistics(child)
    if 2 * child.channels < FEWEST_CHANNELS * len(parents):
        return None
    shares = mixture.shares_of(after, parents, child.eps)
    if max(shares) >= _WHOLE:
        return None
    fit = mixture.mixed(shares, parents)
    return Mixture("parents", shares, mixture.left_over(after, fit, child.eps))


def _statistics(layer: LayerState) -> Statistics:
    return layer.running_mean, layer.running_var
