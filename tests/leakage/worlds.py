"""Simulated samples whose outcome depends on their batch mates in known ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bnaudit.stats.arranged import Difference, Drawn, share_difference
from bnaudit.stats.arrangements import of_one_group, shuffled


class World(NamedTuple):
    """Samples of several classes. What comes of one depends on its batch's `signal`."""

    classes: np.ndarray
    signal: np.ndarray
    own: np.ndarray
    centre: np.ndarray


Outcome = Callable[[World, np.ndarray], np.ndarray]


def by_own_features(world: World, batch: np.ndarray) -> np.ndarray:
    return world.own[batch] + 0.5


def by_mates_alike(world: World, batch: np.ndarray) -> np.ndarray:
    """Right where the mates look like the sample's own class: what training on classes teaches."""
    return 0.5 * world.own[batch] + 0.5 - 2 * (_from_centre(world, batch) - 0.6)


def mates_weighing(weight: float) -> Outcome:
    """The same, where the mates weigh so much against the sample's own features."""

    def outcome(world: World, batch: np.ndarray) -> np.ndarray:
        right: np.ndarray = world.own[batch] + 0.5 - weight * _from_centre(world, batch)
        return right

    return outcome


def by_distance_of_the_mean(world: World, batch: np.ndarray) -> np.ndarray:
    mean = world.signal[batch].mean(1, keepdims=True)
    return 0.5 * world.own[batch] + 0.3 + 1.5 * (np.abs(mean) - 0.7)


def by_spread(world: World, batch: np.ndarray) -> np.ndarray:
    """Right where the batch varies much, which batches of one class do less."""
    return 0.5 * world.own[batch] + 2 * (world.signal[batch].std(1, keepdims=True) - 1.1)


WORLDS = {
    "own features": by_own_features,
    "mates alike": by_mates_alike,
    "mates, a little": mates_weighing(0.2),
    "distance of the mean": by_distance_of_the_mean,
    "spread": by_spread,
}


def _from_centre(world: World, batch: np.ndarray) -> np.ndarray:
    mean = world.signal[batch].mean(1, keepdims=True)
    distance: np.ndarray = np.abs(mean - world.centre[batch])
    return distance


def draw_of(
    rng: np.random.Generator,
    samples: int,
    outcome: Outcome,
    draws: int,
    classes: int = 10,
    size: int = 8,
) -> Difference:
    """Batches of one class against shuffled ones, of new samples."""
    of = rng.integers(0, classes, samples)
    centre = np.linspace(-1.5, 1.5, classes)[of]
    world = World(of, rng.normal(size=samples) + centre, rng.normal(size=samples), centre)

    def drawn(make: Callable[[], np.ndarray]) -> Drawn:
        values, places = np.full((draws, samples), np.nan), np.full((draws, samples), -1)
        for k in range(draws):
            batches = make()
            values[k, batches] = outcome(world, batches) > 0
            places[k, batches] = np.arange(len(batches))[:, None]
        return Drawn(values, places)

    found = share_difference(
        drawn(lambda: shuffled(samples, size, rng)),
        drawn(lambda: of_one_group(of, size, rng)),
        of,
    )
    assert found is not None
    return found
