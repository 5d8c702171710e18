"""Tests over seeds, with their power: each seed gives one paired difference.

All at the two-sided level that is asked for. The intervals and the power are Student's; the
sign-flip test stands beside them, as it needs no normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
WANTED_POWER = 0.8
_NODES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and the limits of its 95% interval (Student's t)."""

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Test:
    """What a test says of the differences of `n` seeds.

    `p_value`: of the t-test, before any correction; `sign_flip`: the exact p-value of the mean when
    each difference is as likely to have the other sign (None for equivalence); `positive`: how many
    seeds are above 0. `power`: the probability of p < `level` if the truth were as `assumed`;
    `detectable`: the effect (for equivalence the margin) at which it would be 80%.
    """

    interval: Interval
    deviation: float
    p_value: float
    sign_flip: float | None
    positive: int
    negative: int
    level: float
    power: float
    detectable: float


def interval_of(values: Sequence[float]) -> Interval:
    """The mean of n ≥ 2 values with its 95% interval."""
    n, mean = len(values), float(np.mean(values))
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * _standard_error(values)
    return Interval(n, mean, mean - half, mean + half)


def difference_test(differences: Sequence[float], level: float = LEVEL) -> Test:
    """Whether the mean difference is 0: the paired t-test, two-sided.

    The power is for a true effect as large as the observed one: a restatement of the p-value,
    which `detectable` is not.
    """
    n, interval, deviation = len(differences), interval_of(differences), _deviation(differences)
    return Test(
        interval=interval,
        deviation=deviation,
        p_value=_t_test_p(interval.mean, _standard_error(differences), n),
        sign_flip=_sign_flip_p(differences),
        positive=sum(d > 0 for d in differences),
        negative=sum(d < 0 for d in differences),
        level=level,
        power=difference_power(abs(interval.mean), deviation, n, level),
        detectable=detectable_difference(deviation, n, level),
    )


def equivalence_test(differences: Sequence[float], margin: float, level: float = LEVEL) -> Test:
    """Whether the mean difference lies within ±margin: two one-sided t-tests (Schuirmann 1987).

    The p-value is the larger of the two; the power is for no true difference at all.
    """
    n, interval, deviation = len(differences), interval_of(differences), _deviation(differences)
    error = _standard_error(differences)
    room = margin - abs(interval.mean)
    p_value = float(stats.t.sf(room / error, n - 1)) if error > 0 else float(room <= 0)
    return Test(
        interval=interval,
        deviation=deviation,
        p_value=p_value,
        sign_flip=None,
        positive=sum(d > 0 for d in differences),
        negative=sum(d < 0 for d in differences),
        level=level,
        power=equivalence_power(margin, deviation, n, level),
        detectable=detectable_margin(deviation, n, level),
    )


def difference_power(effect: float, deviation: float, n: int, level: float) -> float:
    """The power of the two-sided t-test for a true mean `effect` of n normal differences."""
    if deviation == 0:
        return float(effect != 0)
    critical = stats.t.ppf(1 - level / 2, n - 1)
    centre = effect * math.sqrt(n) / deviation
    above = stats.nct.sf(critical, n - 1, centre)
    below = stats.nct.cdf(-critical, n - 1, centre)
    # far out scipy's noncentral t is NaN where the probability is 0 or 1 to all digits
    return float(1.0 if np.isnan(above) else above + np.nan_to_num(below))


def detectable_difference(deviation: float, n: int, level: float) -> float:
    """The true mean difference that the t-test finds with a probability of 80%."""
    if deviation == 0:
        return 0.0
    standardised = optimize.brentq(
        lambda d: difference_power(d, 1.0, n, level) - WANTED_POWER, 1e-3, 50.0
    )
    return float(standardised) * deviation


def equivalence_power(margin: float, deviation: float, n: int, level: float) -> float:
    """The power of the two one-sided t-tests where there is no true difference.

    The mean of n normal differences is independent of their standard deviation s, and the tests
    succeed where |mean| < margin − t·s/√n: averaged over the quantiles of s.
    """
    if deviation == 0:
        return float(margin > 0)
    critical = stats.t.ppf(1 - level, n - 1)
    quantiles = (np.arange(_NODES) + 0.5) / _NODES
    s = deviation * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    error = deviation / math.sqrt(n)
    room = np.maximum(0.0, margin - critical * s / math.sqrt(n))
    return float(np.mean(2 * stats.norm.cdf(room / error) - 1))


def detectable_margin(deviation: float, n: int, level: float) -> float:
    """The margin within which equal means are shown to be equivalent with a probability of 80%."""
    if deviation == 0:
        return 0.0
    standardised = optimize.brentq(
        lambda m: equivalence_power(m, 1.0, n, level) - WANTED_POWER, 1e-3, 50.0
    )
    return float(standardised) * deviation


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: below 0.05 where the family-wise procedure rejects."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


def _standard_error(values: Sequence[float]) -> float:
    return _deviation(values) / math.sqrt(len(values))


def _t_test_p(mean: float, error: float, n: int) -> float:
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, n - 1))


def _sign_flip_p(differences: Sequence[float]) -> float:
    """The share of all 2ⁿ choices of signs whose sum is as far from 0 as the observed one."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    observed = abs(float(np.sum(differences)))
    tolerance = 1e-9 * float(np.sum(np.abs(differences)))  # sums of equal terms in another order
    return float(np.mean(np.abs(sums) >= observed - tolerance))
