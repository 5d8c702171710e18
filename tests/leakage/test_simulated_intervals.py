"""How often the intervals of arrangements cover, and what gains they show: simulated."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from worlds import WORLDS, Outcome, draw_of, mates_weighing

pytestmark = pytest.mark.slow

REPETITIONS = 300
SAMPLES = (400, 1000)


def true_difference(outcome: Outcome, classes: int, size: int) -> float:
    rng = np.random.default_rng(0)
    large = [draw_of(rng, 20_000, outcome, 1, classes, size) for _ in range(6)]
    return float(np.mean([one.difference for one in large]))


@pytest.mark.parametrize("world", WORLDS)
def test_nominal_95_per_cent_intervals_cover_in_no_less(world: str) -> None:
    for classes, size in product((2, 10), (8, 32)):
        truth = true_difference(WORLDS[world], classes, size)
        for samples in SAMPLES:
            rng = np.random.default_rng(1)
            found = [
                draw_of(rng, samples, WORLDS[world], 3, classes, size) for _ in range(REPETITIONS)
            ]
            covered = np.mean([one.low <= truth <= one.high for one in found])  # type: ignore[operator]
            # 95% less 1.6 standard deviations of 300 trials; as measured: 95.3% to 100%.
            assert covered >= 0.93, (classes, size, samples)


@pytest.mark.parametrize(
    ("weight", "samples", "gain", "power"),
    [(0.08, 1000, 0.015, 0.95), (0.2, 400, 0.035, 0.8)],
)
def test_gains_of_a_few_points_are_found(
    weight: float, samples: int, gain: float, power: float
) -> None:
    """Mates that weigh little: 1.5 points and more are found in 1,000 samples, 3.5 in 400."""
    for classes, size in product((2, 10), (8, 32)):
        assert true_difference(mates_weighing(weight), classes, size) >= gain
        rng = np.random.default_rng(1)
        found = [
            draw_of(rng, samples, mates_weighing(weight), 3, classes, size)
            for _ in range(REPETITIONS)
        ]
        assert np.mean([one.low > 0 for one in found]) >= power  # type: ignore[operator]
