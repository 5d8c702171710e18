"""Roots of squared figures, and how they differ on the same samples, by the jackknife. No torch."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from bnaudit.stats.paired import Floats, Paired

MIN_GROUPS = 8
"""Below this number of groups a jackknife interval would be too rough to print."""


class RootFigure(NamedTuple):
    """√max(0, θ) with its limits, from the jackknife of θ; `deviation` (k,): θ₋ⱼ − their mean."""

    value: float
    low: float
    high: float
    deviation: Floats


def jackknife_root(squared: float, left_out: Floats, level: float = 0.95) -> RootFigure | None:
    """The delete-a-group jackknife of a squared figure θ, and its root.

    `squared`: θ from all samples; `left_out` (k,): θ without each of k groups of equal size (to
    within one sample). Bias b = (k − 1)(mean θ₋ⱼ − θ), variance (k − 1)/k Σ(θ₋ⱼ − mean)²; value and
    two-sided Student interval at `level` are those of θ − b, end points √max(0, ·). None below
    `MIN_GROUPS` groups, or where a figure is not finite.
    """
    k = len(left_out)
    if k < MIN_GROUPS or not (math.isfinite(squared) and np.isfinite(left_out).all()):
        return None
    deviation = left_out - left_out.mean()
    debiased = squared - (k - 1) * (float(left_out.mean()) - squared)
    error = math.sqrt((k - 1) / k * float((deviation**2).sum()))
    return root_figure(debiased, error, k, deviation, level)


def root_figure(
    squared: float, standard_error: float, groups: int, deviation: Floats, level: float = 0.95
) -> RootFigure:
    """The root of a debiased squared figure of known standard error, from so many groups."""
    half = student_quantile(level, groups) * standard_error
    low, value, high = (_root(squared + h) for h in (-half, 0.0, half))
    return RootFigure(value, low, high, deviation)


def jackknife_change(
    before: float,
    before_left_out: Floats,
    after: float,
    after_left_out: Floats,
    level: float = 0.95,
) -> Paired | None:
    """The change of a root-mean-square figure between two conditions of the same samples.

    `before`, `after`: the squared figures from all samples; the others (k,): without each group,
    in the same order on both sides. Each root has its `jackknife_root`; their difference has the
    limits of `root_difference` with the correlation of the left-out figures. The detour by the
    limits of each root is for a figure near 0, as after a recalibration: its root has no
    derivative there, and the jackknife of the difference itself would be wrong. None where
    `jackknife_root` is None on a side, or the sides do not have the same groups.
    """
    if len(before_left_out) != len(after_left_out):
        return None
    old = jackknife_root(before, before_left_out, level)
    new = jackknife_root(after, after_left_out, level)
    if old is None or new is None:
        return None
    return root_difference(old, new, correlation(old.deviation, new.deviation))


def root_difference(before: RootFigure, after: RootFigure, rho: float) -> Paired:
    """after − before, with limits from the limits l, u of each (MOVER).

        low = a − b − √((a − l_a)² + (u_b − b)² − 2ρ (a − l_a)(u_b − b))

    and `high` with the other end points: Zou 2007, "Toward using confidence intervals to compare
    correlations", Psychological Methods 12, which keeps what each interval knows of bounds and
    skewness. `rho` is the correlation of the two estimates. A limit that stands at 0 is not the
    end of a distribution, the figure itself may be 0: there the distances are added, not their
    squares, low = l_a − u_b.
    """
    difference = after.value - before.value
    below, above = after.value - after.low, after.high - after.value
    low = difference - _joint(below, before.high - before.value, rho, added=after.low <= 0)
    high = difference + _joint(above, before.value - before.low, rho, added=before.low <= 0)
    return Paired(before.value, after.value, difference, low, high)


def correlation(a: Floats, b: Floats) -> float:
    """The correlation of two series of deviations, (k,) each; 0 where one does not vary."""
    scale = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    return max(-1.0, min(1.0, float((a * b).sum()) / scale)) if scale > 0 else 0.0


def _joint(a: float, b: float, rho: float, *, added: bool) -> float:
    return a + b if added else _root(a * a + b * b - 2 * rho * a * b)


def _root(squared: float) -> float:
    return math.sqrt(max(0.0, squared))


@cache
def student_quantile(level: float, groups: int) -> float:
    """The same of Student's t for a figure of so many groups."""
    from scipy import stats as scipy_stats

    return float(scipy_stats.t.ppf(0.5 + level / 2, groups - 1))
