"""Tests over seeds, against scipy's own tests, against simulation, and against bnaudit's Holm."""

from __future__ import annotations

import numpy as np
import pytest
from reproduce.significance import (
    detectable_difference,
    detectable_margin,
    difference_power,
    difference_test,
    equivalence_power,
    equivalence_test,
    holm_adjusted,
    interval_of,
)
from scipy import stats

from bnaudit.stats.significance import holm

SAMPLES = [
    np.random.default_rng(seed).normal(shift, 1.0, n)
    for seed, (shift, n) in enumerate([(0.0, 10), (0.8, 10), (-1.5, 5), (0.1, 16), (3.0, 7)])
]


@pytest.mark.parametrize("differences", SAMPLES)
def test_the_difference_test_is_the_paired_t_test(differences):
    found = difference_test(list(differences))
    reference = stats.ttest_1samp(differences, 0.0)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    limits = reference.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((limits.low, limits.high))
    assert (found.positive, found.negative) == ((differences > 0).sum(), (differences < 0).sum())


@pytest.mark.parametrize("differences", [sample for sample in SAMPLES if len(sample) <= 12])
def test_the_sign_flip_test_is_scipys_exact_permutation_test(differences):
    reference = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert difference_test(list(differences)).sign_flip == pytest.approx(reference.pvalue)


@pytest.mark.parametrize("differences", SAMPLES)
def test_equivalence_is_the_worse_of_two_one_sided_t_tests(differences):
    found = equivalence_test(list(differences), margin=1.0)
    above = stats.ttest_1samp(differences, -1.0, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, 1.0, alternative="less").pvalue
    assert found.p_value == pytest.approx(max(above, below), rel=1e-9)


def test_equal_differences_leave_no_doubt():
    for value, wanted in ((0.25, 0.0), (0.0, 1.0)):
        found = difference_test([value] * 6)
        assert (found.p_value, found.power, found.detectable) == (wanted, float(value != 0), 0.0)
    assert equivalence_test([0.0] * 6, margin=0.01).p_value == 0.0
    assert equivalence_test([0.02] * 6, margin=0.01).p_value == 1.0
    assert equivalence_test([0.0] * 6, margin=0.01).power == 1.0


def simulated(n: int, effect: float, draws: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(0).normal(effect, 1.0, (draws, n))
    return drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / np.sqrt(n)


@pytest.mark.parametrize(("n", "effect", "level"), [(5, 1.5, 0.05), (10, 0.9, 0.01), (16, 0, 0.05)])
def test_the_power_of_a_difference_is_how_often_it_is_found(n, effect, level):
    mean, error = simulated(n, effect)
    found = np.mean(np.abs(mean) > stats.t.ppf(1 - level / 2, n - 1) * error)
    assert difference_power(effect, 1.0, n, level) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize(
    ("n", "margin", "level"), [(5, 1.5, 0.05), (10, 1.0, 0.01), (16, 0.5, 0.05)]
)
def test_the_power_of_an_equivalence_is_how_often_it_is_shown(n, margin, level):
    mean, error = simulated(n, 0.0)
    found = np.mean(np.abs(mean) + stats.t.ppf(1 - level, n - 1) * error < margin)
    assert equivalence_power(margin, 1.0, n, level) == pytest.approx(found, abs=0.01)


def test_what_is_detectable_has_a_power_of_80_percent():
    effect, margin = detectable_difference(2.0, 10, 0.01), detectable_margin(2.0, 10, 0.01)
    assert difference_power(effect, 2.0, 10, 0.01) == pytest.approx(0.8, abs=1e-6)
    assert equivalence_power(margin, 2.0, 10, 0.01) == pytest.approx(0.8, abs=1e-6)


def test_power_is_a_number_however_large_the_effect():
    assert difference_power(1000.0, 1.0, 10, 0.01) == 1.0
    assert difference_power(-1000.0, 1.0, 10, 0.01) == pytest.approx(1.0)


def test_adjusted_p_values_reject_what_holm_rejects():
    generator = np.random.default_rng(0)
    for _ in range(200):
        p_values = list(generator.uniform(0, 0.08, generator.integers(1, 8)))
        assert [p < 0.05 for p in holm_adjusted(p_values)] == holm(p_values, 0.05)
    assert holm_adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_intervals_cover_the_mean_as_often_as_they_say():
    drawn = np.random.default_rng(1).normal(1.0, 1.0, (2000, 6))
    intervals = [interval_of(list(one)) for one in drawn]
    assert np.mean([one.low < 1.0 < one.high for one in intervals]) == pytest.approx(0.95, abs=0.02)
