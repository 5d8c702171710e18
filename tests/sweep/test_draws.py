"""Intervals of figures that are means over draws and over samples, against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bnaudit.stats.draws import (
    accuracy_change_over_draws,
    mean_change_over_draws,
    over_draws,
)
from bnaudit.stats.paired import accuracy_change, mean_change

TRIALS = 300


def test_the_interval_over_draws_is_students() -> None:
    values = np.random.default_rng(0).normal(size=5)
    expected = scipy_stats.t.interval(0.95, 4, loc=values.mean(), scale=scipy_stats.sem(values))
    assert over_draws(values) == pytest.approx((values.mean(), *expected))


def test_a_single_draw_has_no_interval() -> None:
    assert over_draws(np.array([0.7])) == (0.7, None, None)


def test_without_draws_the_limits_are_those_of_paired_samples() -> None:
    rng = np.random.default_rng(1)
    old, new = ((rng.random((1, 200)) < p).astype(float) for p in (0.8, 0.9))
    both, before, after = (
        int((a * b).sum()) for a, b in ((old, new), (old, 1 - new), (1 - old, new))
    )
    assert accuracy_change_over_draws(old, new) == pytest.approx(
        accuracy_change(before, after, both, 200), abs=1e-3
    )
    assert mean_change_over_draws(old, new, seed=3) == mean_change(old[0], new[0], seed=3)


def test_equal_sides_are_not_equal_for_certain() -> None:
    right = np.ones((3, 50))
    found = accuracy_change_over_draws(right, right)
    assert found.difference == 0
    assert found.low is not None
    assert found.low < -0.05


def _simulated(rng: np.random.Generator, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """One reference of 120 samples, and 4 draws whose accuracies differ among each other."""
    ability = rng.normal(size=120)
    old = (ability + rng.normal(size=(1, 120)) > -1).astype(float)
    draws = rng.normal(0, 0.3, size=(4, 1))
    new = (ability + effect + draws + rng.normal(size=(4, 120)) > -1).astype(float)
    return old, new


def test_the_intervals_cover_the_truth_over_samples_and_draws() -> None:
    rng = np.random.default_rng(2)
    scale = np.sqrt(1 + 1 + 0.3**2)
    truth = scipy_stats.norm.cdf(1.3 / scale) - scipy_stats.norm.cdf(1 / np.sqrt(2))
    covered = {"accuracy": 0, "mean": 0}
    for trial in range(TRIALS):
        old, new = _simulated(rng, effect=0.3)
        by_name = {
            "accuracy": accuracy_change_over_draws(old, new),
            "mean": mean_change_over_draws(old, new, seed=trial),
        }
        for name, found in by_name.items():
            assert found is not None
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= truth <= found.high
    assert covered["accuracy"] / TRIALS >= 0.95
    assert covered["mean"] / TRIALS >= 0.93
