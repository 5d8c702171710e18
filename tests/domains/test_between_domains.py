"""The distance between two populations: exact against NumPy, right on average under chance."""

from __future__ import annotations

import math

import numpy as np
import torch

from bnaudit.stats.between_domains import distance, plain_distance, squared_distance
from bnaudit.stats.moments import Moments


def grouped(values: np.ndarray, groups: int) -> Moments:
    """The moments of (n, C) values dealt to groups of consecutive rows."""
    parts = [torch.tensor(part) for part in np.array_split(values, groups)]
    return Moments(
        torch.tensor([float(len(part)) for part in parts], dtype=torch.float64),
        torch.stack([part.mean(0) for part in parts]),
        torch.stack([(part - part.mean(0)).square().sum(0) for part in parts]),
    )


def test_it_is_symmetric_bounded_and_zero_for_equal_populations() -> None:
    rng = np.random.default_rng(0)
    m1, m2 = torch.tensor(rng.normal(size=(2, 50)))
    v1, v2 = torch.tensor(rng.exponential(size=(2, 50)))
    there = squared_distance((m1, v1), (m2, v2), 1e-5)
    torch.testing.assert_close(there, squared_distance((m2, v2), (m1, v1), 1e-5))
    assert float(squared_distance((m1, v1), (m1, v1), 0.0).max()) == 0
    # One side without variance: the scale part stays below 2, whatever the other side's.
    zero = torch.zeros(50, dtype=torch.float64)
    assert float(squared_distance((m1, zero), (m1, 1e6 * v1), 1e-5).max()) <= 2
    assert float(squared_distance((zero, zero), (zero, zero), 0.0).max()) == 0


def test_it_is_the_two_wasserstein_distance_in_standard_deviations() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(1, 2, (4000, 3)), rng.normal(1.5, 3, (5000, 3))
    gamma = np.array([1.0, 0.5, 0.0])
    gap = (one.mean(0) - other.mean(0)) ** 2 + (one.std(0) - other.std(0)) ** 2
    expected = np.average(gap / ((one.var(0) + other.var(0)) / 2), weights=gamma**2)
    found = plain_distance(grouped(one, 16), grouped(other, 16), 0.0, torch.tensor(gamma))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_under_chance_alone_the_bias_is_taken_off_and_the_interval_covers_zero() -> None:
    rng = np.random.default_rng(2)
    gamma = torch.ones(64, dtype=torch.float64)
    debiased, plain, above = [], [], 0
    for _ in range(60):
        one, other = (
            grouped(rng.normal(size=(320, 64)), 16),
            grouped(rng.normal(size=(200, 64)), 10),
        )
        found = distance(one, other, 1e-5, gamma)
        assert found is not None
        debiased.append(found.debiased)
        plain.append(found.plain)
        above += found.interval()[0] > 0
    # A mean of n samples varies by 1/n, a standard deviation by 1/2n: on both sides.
    expected = 1.5 * (1 / 320 + 1 / 200)
    assert math.isclose(np.mean(plain), expected, rel_tol=0.1)
    assert abs(np.mean(debiased)) < 0.1 * expected
    assert above <= 8  # of 60, where channels are independent; 2.5% are expected of one channel


def test_a_true_distance_lies_in_its_interval_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    gamma = torch.ones(8, dtype=torch.float64)
    truth = (0.3**2 + 0.5**2) / ((1 + 1.5**2) / 2)
    inside = 0
    for _ in range(100):
        one, other = rng.normal(size=(320, 8)), rng.normal(0.3, 1.5, (320, 8))
        found = distance(grouped(one, 16), grouped(other, 16), 0.0, gamma)
        assert found is not None
        low, high = found.interval()
        inside += low <= truth <= high
    assert inside >= 88


def test_too_few_groups_or_a_layer_without_output_give_no_interval() -> None:
    rng = np.random.default_rng(4)
    one, other = rng.normal(size=(2, 40, 3))
    ones, zeros = (torch.full((3,), value, dtype=torch.float64) for value in (1.0, 0.0))
    assert distance(grouped(one, 4), grouped(other, 10), 0.0, ones) is None
    assert distance(grouped(one, 10), grouped(other, 10), 0.0, zeros) is None
    assert math.isnan(plain_distance(grouped(one, 4), grouped(other, 4), 0.0, zeros))
