"""Are mini-batches random draws of their samples? A permutation test. No torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERMUTATIONS = 999

MOST_COLUMNS = 64
"""Of more, so many evenly spaced ones are used: each shuffle costs as much as there are."""


class BetweenBatches(NamedTuple):
    """The variance of mini-batches' means, over what shuffling gives, and the test's p-value."""

    ratio: float
    p_value: float


def between_batches(values: Floats, sizes: list[int], seed: int = 0) -> BetweenBatches | None:
    """Whether consecutive batches differ by more than random ones of the same samples would.

    `values` (n, C): a figure of each sample, in the order read; `sizes`: of the batches, together
    n. Each column is standardised; with x̄_b the mean of batch b and n_b its size, the statistic is

        T = Σ_b n_b ‖x̄_b‖² / C

    of expectation (n / (n − 1)) (k − 1) under shuffling, for k batches. `ratio` is T over that;
    `p_value` the share of shuffles, the observed order among them, with a T as large (Fisher's
    permutation test: exact whatever the distribution). None with fewer than two batches, or where
    no column varies. The same `seed` gives the same figures; no global generator is touched.
    """
    n, k = len(values), len(sizes)
    spread = values.std(0)
    used = spread > 1e-12 * (1 + np.abs(values).max(initial=0.0))
    if k < 2 or sum(sizes) != n or n <= k or not used.any():
        return None
    columns = np.flatnonzero(used)
    columns = columns[:: -(-len(columns) // MOST_COLUMNS)]
    standard = (values[:, columns] - values[:, columns].mean(0)) / spread[columns]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    weight = np.array(sizes, dtype=np.float64)

    def statistic(order: NDArray[np.intp]) -> float:
        sums = np.add.reduceat(standard[order], starts, axis=0)
        return float((sums**2 / weight[:, None]).sum() / len(columns))

    rng = np.random.default_rng(seed)
    observed = statistic(np.arange(n))
    beyond = sum(statistic(rng.permutation(n)) >= observed for _ in range(PERMUTATIONS))
    expected = n / (n - 1) * (k - 1)
    return BetweenBatches(observed / expected, (1 + beyond) / (1 + PERMUTATIONS))
