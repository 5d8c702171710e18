"""How a root changes between two conditions of the same samples, where it may be 0. No torch."""

from __future__ import annotations

import math
from typing import NamedTuple

from bnaudit.stats.paired import Paired
from bnaudit.stats.roots import RootFigure, student_quantile


class Limits(NamedTuple):
    """Those of a difference."""

    low: float
    high: float


def difference_of_squares(
    before_squared: float,
    after_squared: float,
    before: RootFigure,
    after: RootFigure,
    level: float,
) -> Limits:
    """Limits of a − b from those of a² − b² = θ, by the paired jackknife of θ.

    Near 0 a root has no derivative, and the limits of each side hide what the two have in common;
    θ has neither trouble. With its limits θₗ, θᵤ, and those of the sides, a − b = √(b² + θ) − b is
    largest at θᵤ and the smallest b, if θᵤ > 0:

        high = √(bₗ² + θᵤ) − bₗ,   low = −(√(aₗ² + |θₗ|) − aₗ)

    and with the upper limits of b and a in place of the lower ones where θᵤ < 0 or θₗ > 0. Equal
    figures, group by group, give (0, 0). `before_squared`, `after_squared`: b² and a² debiased,
    which may be below 0; the roots have their deviations by group, in the same order.
    """
    k = len(before.deviation)
    deviation = after.deviation - before.deviation
    half = student_quantile(level, k) * math.sqrt((k - 1) / k * float((deviation**2).sum()))
    low, high = (after_squared - before_squared + end for end in (-half, half))
    return Limits(
        _rise(before.high, low) if low > 0 else -_rise(after.low, -low),
        _rise(before.low, high) if high > 0 else -_rise(after.high, -high),
    )


def narrower(found: Paired, limits: Limits) -> Paired:
    """The difference with the narrower limit on each side, which it never leaves."""
    if found.low is None or found.high is None:
        return found
    low = min(found.difference, max(found.low, limits.low))
    high = max(found.difference, min(found.high, limits.high))
    return found._replace(low=low, high=high)


def _rise(root: float, theta: float) -> float:
    return math.sqrt(root * root + theta) - root
