"""Figures that are means over random draws as well as over samples. In NumPy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bnaudit.stats.paired import Paired, accuracy_change, mean_change
from bnaudit.stats.roots import student_quantile

Floats = NDArray[np.float64]


def over_draws(values: Floats, level: float = 0.95) -> tuple[float, float | None, float | None]:
    """The mean over draws, (D,), with Student's interval for the mean of all possible draws.

    Limits are None for a single draw, which says nothing of the others.
    """
    mean = float(values.mean())
    half = _half(values, level)
    return (mean, None, None) if half is None else (mean, mean - half, mean + half)


def accuracy_change_over_draws(before: Floats, after: Floats) -> Paired:
    """The difference of two accuracies on the same samples, each a mean over draws.

    `before` (D₁, n), `after` (D₂, n): whether each sample is right in each draw, 0 or 1; a side
    without draws has D = 1. The samples' part of the interval is Tango's (`accuracy_change`) for
    the discordance of a single pair of draws, on average over the pairs, which errs to the wide
    side and never has width 0. The draws' part is Student's, from the draws' accuracies,
    independent on the two sides. They are put together by their squares (MOVER: Zou & Donner 2008,
    "Construction of confidence limits about effect measures", Statistics in Medicine 27).
    """
    n = before.shape[1]
    old, new = before.mean(0), after.mean(0)
    # Any pair of draws will do; whole samples, rounded to the wide side.
    only_before = min(n, math.ceil(float((old * (1 - new)).sum())))
    only_after = min(n - only_before, math.ceil(float((new * (1 - old)).sum())))
    found = accuracy_change(only_before, only_after, 0, n)
    means = float(old.mean()), float(new.mean())
    shift = means[1] - means[0] - found.difference
    found = Paired(*means, found.difference + shift, *_moved(found, shift))
    return _widened(found, before.mean(1), after.mean(1))


def mean_change_over_draws(before: Floats, after: Floats, seed: int) -> Paired | None:
    """The difference of two means over the same samples, each a mean over draws too.

    `before` (D₁, n), `after` (D₂, n). The samples' part of the interval is the bootstrap-t one of
    `mean_change`, on the samples' means over draws; the draws' part, and how the two are put
    together, as in `accuracy_change_over_draws`. None where a figure is not finite.
    """
    found = mean_change(before.mean(0), after.mean(0), seed)
    return None if found is None else _widened(found, before.mean(1), after.mean(1))


def _widened(found: Paired, before: Floats, after: Floats) -> Paired:
    """The limits of a difference, wider by what the draws of either side (D,) add."""
    if found.low is None or found.high is None:
        return found
    halves = [half for side in (before, after) if (half := _half(side, 0.95)) is not None]
    squared = sum(half**2 for half in halves)
    below = math.sqrt((found.difference - found.low) ** 2 + squared)
    above = math.sqrt((found.high - found.difference) ** 2 + squared)
    return found._replace(low=found.difference - below, high=found.difference + above)


def _moved(found: Paired, shift: float) -> tuple[float, float]:
    """The limits, which accuracies always have, moved along."""
    assert found.low is not None
    assert found.high is not None
    return found.low + shift, found.high + shift


def _half(values: Floats, level: float) -> float | None:
    """Half the width of Student's interval for a mean over draws; None for a single one."""
    draws = len(values)
    if draws < 2:
        return None
    return student_quantile(level, draws) * float(values.std(ddof=1)) / math.sqrt(draws)
