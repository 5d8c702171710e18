"""What an arrangement of samples in batches changes, with an interval that counts the batches.

A sample's outcome under mini-batch statistics depends on its mates, so outcomes of one batch are
not independent, and neither are those of one shuffle of another's. In NumPy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bnaudit.stats.arrangements import Ints

Floats = NDArray[np.float64]

LEAST_DEGREES = 4
"""Of freedom: below, an interval would be too rough to print."""


class Difference(NamedTuple):
    """The means of two arrangements, their difference, its 95% limits and two-sided p-value.

    Limits and p-value are None where there are too few batches, or nothing varies (the p-value is 1
    for no difference then). `samples`: those compared.
    """

    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    samples: int


class Mean(NamedTuple):
    """A mean, its 95% limits, and its one-sided p-value against 0.

    Limits and p-value are None where there are too few clusters, or nothing varies (the p-value is
    1 for a mean of 0 then).
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None


class Drawn(NamedTuple):
    """Outcomes of n samples in D draws of an arrangement.

    `values` (D, n): NaN where a sample has no outcome. `batches` (D, n): the number of its
    mini-batch in the draw, -1 where it has no place.
    """

    values: Floats
    batches: Ints


def difference(shuffled: Drawn, arranged: Drawn, strata: Ints) -> Difference | None:
    """The mean of `arranged` less that of `shuffled`, over the samples that both have.

    `strata` (n,): the group that all of a sample's mates share in `arranged`; zeros where batches
    hold several. With dᵢ the difference of a sample's means over draws,

        V = Σ(dᵢ − d̄)² / n(n − 1) + E(arranged) + E(shuffled)

    E is what covariances inside batches add: the variance of the mean by batches as clusters less
    that by samples, averaged over draws (not divided by their number: draws deal the same pool of
    mates anew, which does not make it larger) and at least 0; for the arranged side within strata,
    a stratum of a single batch being put to the others of that kind (collapsed strata, Cochran
    1977, section 5A.12). The sum of the two is the two-way cluster variance of Cameron, Gelbach &
    Miller 2011 ("Robust inference with multiway clustering"). Limits are Student's with as many
    degrees of freedom as there are batches, less strata. They err to the wide side, for what the
    same mates do on both sides partly cancels: simulated, they cover in 95 to 100%
    (tests/leakage/test_simulated_intervals.py). None where no sample is on both sides.
    """
    return _difference(shuffled, arranged, strata, pseudo=0.0)


def share_difference(shuffled: Drawn, arranged: Drawn, strata: Ints) -> Difference | None:
    """`difference` of shares, whose outcomes are 0 or 1.

    Two pseudo-samples, one right on either side alone, enter the variance, as in Agresti & Min
    2005 ("Simple improved confidence intervals for comparing matched proportions"), so that it is
    not 0 where no sample differs.
    """
    return _difference(shuffled, arranged, strata, pseudo=2.0)


def _difference(shuffled: Drawn, arranged: Drawn, strata: Ints, pseudo: float) -> Difference | None:
    before, after = (_mean_over_draws(side.values) for side in (shuffled, arranged))
    used = np.isfinite(before) & np.isfinite(after)
    n = int(used.sum())
    if not n:
        return None
    d = after[used] - before[used]
    means = float(before[used].mean()), float(after[used].mean())
    gap = means[1] - means[0]
    extra_arranged, degrees = _excess(arranged, -before, used, strata)
    nothing = np.zeros_like(strata)
    extra_shuffled, degrees_shuffled = _excess(shuffled, -after, used, nothing)
    degrees = min(degrees, degrees_shuffled)
    if n < 2 or degrees < LEAST_DEGREES:
        return Difference(*means, gap, None, None, None, n)
    own = (float(((d - d.mean()) ** 2).sum()) + pseudo) / (n * (n - 1))
    limits = _limits(gap, own + extra_arranged + extra_shuffled, degrees)
    p = limits.p_value
    two_sided = None if p is None else 2 * min(p, 1 - p)
    if gap == 0:
        two_sided = 1.0
    return Difference(*means, gap, limits.low, limits.high, two_sided, n)


def _mean_over_draws(values: Floats) -> Floats:
    """(D, n) -> (n,), NaN where no draw has a value."""
    known = np.isfinite(values)
    counts = known.sum(0)
    sums = np.where(known, values, 0.0).sum(0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _excess(side: Drawn, other: Floats, used: NDArray[np.bool_], strata: Ints) -> tuple[float, int]:
    """(what covariances inside batches add to the variance of the mean, degrees of freedom)."""
    added, degrees = [], []
    for values, batches in zip(side.values, side.batches, strict=True):
        here = used & np.isfinite(values) & (batches >= 0)
        n = int(here.sum())
        if n < 2:
            continue
        _, batch = np.unique(batches[here], return_inverse=True)
        first = np.unique(batch, return_index=True)[1]
        stratum = _collapsed(strata[here][first])
        of_sample = stratum[batch]
        residual = values[here] + other[here]
        sizes = np.bincount(of_sample)
        residual = residual - (np.bincount(of_sample, residual) / sizes)[of_sample]
        totals = np.bincount(batch, residual)
        counts = np.bincount(stratum)
        clusters = (counts / np.maximum(counts - 1, 1))[stratum] @ totals**2
        singles = (sizes / np.maximum(sizes - 1, 1))[of_sample] @ residual**2
        added.append((clusters - singles) / n**2)
        degrees.append(len(totals) - len(counts))
    if not added:
        return 0.0, 0
    return max(0.0, float(np.mean(added))), min(degrees)


def _collapsed(strata: Ints) -> Ints:
    """Strata of batches numbered anew; those of a single batch are put together."""
    _, numbered, counts = np.unique(strata, return_inverse=True, return_counts=True)
    single = counts == 1
    if not single.any():
        return np.asarray(numbered)
    merged = np.where(single, -1, np.arange(len(counts)))
    if single.sum() == 1 and len(counts) > 1:
        merged[np.argmin(np.where(single, np.iinfo(np.int64).max, counts))] = -1
    return np.asarray(np.unique(merged[numbered], return_inverse=True)[1])


def clustered_mean(values: Floats, samples: Ints, batches: Ints) -> Mean:
    """The mean of observations that share samples and batches, each (m,), with its limits.

    The two-way cluster variance (Cameron, Gelbach & Miller 2011): by sample, plus by batch, less
    by observation, at least the largest of the three; Student's t with as many degrees of freedom
    as the fewer of samples and batches, less one.
    """
    return _clustered(values, samples, batches, pseudo=0.0)


def clustered_share(values: Floats, samples: Ints, batches: Ints) -> Mean:
    """`clustered_mean` of shares of 0 to 1, or of their differences.

    Two pseudo-clusters, one on either side, enter the variance as in `share_difference`, so that
    it is not 0 where all are right.
    """
    return _clustered(values, samples, batches, pseudo=2.0)


def _clustered(values: Floats, samples: Ints, batches: Ints, pseudo: float) -> Mean:
    m = len(values)
    value = float(values.mean())
    residual = values - value
    ways = []
    for cluster in (samples, batches, np.arange(m)):
        totals = np.bincount(np.unique(cluster, return_inverse=True)[1], residual)
        ways.append(float((totals**2).sum()) / m**2 * len(totals) / max(1, len(totals) - 1))
    clusters = min(len(np.unique(samples)), len(np.unique(batches)))
    if clusters - 1 < LEAST_DEGREES:
        return Mean(value, None, None, None)
    variance = max(ways[0] + ways[1] - ways[2], *ways) + pseudo / (clusters * (clusters - 1))
    return _limits(value, variance, clusters - 1)


def _limits(value: float, variance: float, degrees: int) -> Mean:
    from scipy import stats as scipy_stats

    if variance <= 0:
        return Mean(value, None, None, 1.0 if value == 0 else None)
    error = math.sqrt(variance)
    half = float(scipy_stats.t.ppf(0.975, degrees)) * error
    return Mean(value, value - half, value + half, float(scipy_stats.t.sf(value / error, degrees)))


def turned(said: Ints, wanted: Ints, samples: Ints, shuffled: Ints) -> tuple[Floats, Floats]:
    """(whether each of m strangers is read as `wanted`, how often it is in shuffled batches).

    `said`: the class that it is read as; `samples`: its number, 0 to n − 1; `shuffled` (D, n): the
    class that each sample is read as in D shuffles, -1 where it has no place; where it never has
    one, the second is how often any sample is read so. Both are of the same sample, so that a class
    that it is often taken for counts on both sides; it holds for two classes as for many.
    """
    there = shuffled[:, samples]
    places = (there >= 0).sum(0)
    hits = (there == wanted).sum(0) / np.maximum(places, 1)
    known = shuffled[shuffled >= 0]
    anybody = np.array([(known == one).mean() if len(known) else 0.0 for one in wanted])
    return (said == wanted).astype(np.float64), np.where(places > 0, hits, anybody)
