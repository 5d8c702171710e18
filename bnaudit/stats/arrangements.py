"""Mini-batches of the same samples in other company: shuffled, or of what belongs together.

A batch is a row of sample numbers, (batches, size). In NumPy; no global generator is touched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOSTLY = 0.5
"""The share of the samples that batches of a single group have to hold; else groups are mixed."""


def in_order(order: Ints, size: int) -> Ints:
    """Consecutive samples together; what does not fill a batch is left out."""
    batches = len(order) // size
    return order[: batches * size].reshape(batches, size)


def shuffled(samples: int, size: int, rng: np.random.Generator) -> Ints:
    """Random batches, a partition of the samples."""
    return in_order(rng.permutation(samples), size)


def of_one_group(groups: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Random batches that hold samples of one group each; `groups` (n,) as numbers.

    What does not fill a batch of its group is left out. Batches are in random order.
    """
    made = [in_order(rng.permutation(np.flatnonzero(groups == g)), size) for g in np.unique(groups)]
    together = np.concatenate(made) if made else np.empty((0, size), np.int64)
    return together[rng.permutation(len(together))]


def by_group(groups: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Samples sorted by group, at random within one, and cut: batches may hold several groups."""
    shuffle = rng.permutation(len(groups))
    return in_order(shuffle[np.argsort(groups[shuffle], kind="stable")], size)


def grouped(groups: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Batches of one group where these hold at least `MOSTLY` of the samples, else by group."""
    pure = sum(int(n) // size * size for n in np.unique(groups, return_counts=True)[1])
    make = of_one_group if pure >= MOSTLY * len(groups) else by_group
    return make(groups, size, rng)


def purity(batches: Ints, groups: Ints) -> float:
    """The share of a batch that its most frequent group has, on average over the batches."""
    shares = [np.unique(groups[one], return_counts=True)[1].max() / len(one) for one in batches]
    return float(np.mean(shares))


def with_strangers(
    batches: Ints, groups: Ints, count: int, rng: np.random.Generator
) -> tuple[Ints, NDArray[np.bool_]]:
    """Batches of one group each whose first `count` samples change places with other batches'.

    Returns the new batches and which places, (batches, size), hold a sample of another group than
    their batch's; a batch may get its own sample back, or one of its own group.
    """
    mixed = batches.copy()
    for place in range(count):
        mixed[:, place] = batches[rng.permutation(len(batches)), place]
    return mixed, groups[mixed] != groups[batches[:, -1]][:, None]
