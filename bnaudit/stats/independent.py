"""Before against after on samples of their own: differences with their intervals. No torch."""

from __future__ import annotations

import math
from typing import NamedTuple

from bnaudit.stats.paired import Paired, normal_quantile, share


class Counted(NamedTuple):
    """How many of n ≥ 1 samples something holds for."""

    successes: int
    n: int


def share_difference(before: Counted, after: Counted, level: float = 0.95) -> Paired:
    """The difference of two shares of independent samples, Newcombe's hybrid score interval.

    With the Wilson limits l, u of each share p at `level`

        low = p₂ − p₁ − √((p₂ − l₂)² + (u₁ − p₁)²)

    and `high` with the other end points: Newcombe 1998, "Interval estimation for the difference
    between independent proportions", Statistics in Medicine 17, method 10. For samples that are
    the same on both sides, or partly, it is too wide.
    """
    old, new = share(*before, level), share(*after, level)
    difference = new.value - old.value
    low = difference - math.hypot(new.value - new.low, old.high - old.value)
    high = difference + math.hypot(new.high - new.value, old.value - old.low)
    return Paired(old.value, new.value, difference, max(-1.0, low), min(1.0, high))


class Mean(NamedTuple):
    """A mean with its standard error, None where it is not known."""

    value: float
    standard_error: float | None


def mean_difference(before: Mean, after: Mean, level: float = 0.95) -> Paired:
    """The difference of two means of independent samples, with the normal interval.

    Limits are withheld where a standard error is not known. For samples that are the same on both
    sides it is too wide.
    """
    difference = after.value - before.value
    if before.standard_error is None or after.standard_error is None:
        return Paired(before.value, after.value, difference, None, None)
    half = normal_quantile(level) * math.hypot(before.standard_error, after.standard_error)
    return Paired(before.value, after.value, difference, difference - half, difference + half)
