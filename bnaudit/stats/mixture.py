"""Whether statistics are a mixture of others: least squares, and what the fit leaves. In NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bnaudit.stats.distance import root_mean, squared_distance

Floats = NDArray[np.float64]
Statistics = tuple[Floats, Floats]
"""Mean and variance, (C,) each."""


def share_of(child: Statistics, parent: Statistics, other: Statistics, eps: float) -> float:
    """a of the nearest child ≈ (1 − a)·parent + a·other; NaN where parent and other are the same.

    Least squares over means and variances, each in the units of `_in_units`.
    """
    start = _in_units(parent, parent, eps)
    way = _in_units(other, parent, eps) - start
    length = float(way @ way)
    return float(way @ (_in_units(child, parent, eps) - start)) / length if length else np.nan


def variance_share(child: Statistics, parent: Statistics, eps: float) -> float:
    """a of the nearest v_child ≈ (1 − a)·v_parent, means left out; NaN where all v_parent are 0."""
    scale = parent[1] + eps
    before, after = parent[1] / scale, child[1] / scale
    length = float(before @ before)
    return 1 - float(before @ after) / length if length else np.nan


def shares_of(child: Statistics, parents: Sequence[Statistics], eps: float) -> tuple[float, ...]:
    """The shares, which sum to 1, of the mixture of the parents that is nearest to the child."""
    start = _in_units(parents[0], parents[0], eps)
    ways = np.stack([_in_units(parent, parents[0], eps) - start for parent in parents[1:]], axis=1)
    rest = np.linalg.lstsq(ways, _in_units(child, parents[0], eps) - start, rcond=None)[0]
    return (1 - float(rest.sum()), *(float(share) for share in rest))


def combined(shares: Sequence[float], parts: Sequence[Statistics]) -> Statistics:
    """Σ share·part, of means and of variances."""
    pairs = list(zip(shares, parts, strict=True))
    mean = np.sum([share * part[0] for share, part in pairs], axis=0)
    var = np.sum([share * part[1] for share, part in pairs], axis=0)
    return mean, var


def left_over(child: Statistics, fit: Statistics, eps: float) -> float:
    """How far the fit is from the child, in the units of the estimation shift: RMS of d."""
    mean_part, scale_part = squared_distance(*fit, *child, eps)
    return root_mean(mean_part + scale_part)


def _in_units(statistics: Statistics, parent: Statistics, eps: float) -> Floats:
    """m/s and v/2s², (2C,), with s² = v_parent + ε: where each moves d as much as the other does.

    To first order a change of the variance by δ moves the standard deviation by δ/2s.
    """
    square = parent[1] + eps
    return np.concatenate([statistics[0] / np.sqrt(square), statistics[1] / (2 * square)])
