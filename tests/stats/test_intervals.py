"""The jackknife and Holm's procedure, against their textbook definitions."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnaudit.stats.jackknife import MIN_GROUPS, Jackknife, deal, group_count, jackknife
from bnaudit.stats.significance import holm, upper_tail_p


def of_statistic(groups: list[np.ndarray]) -> Jackknife | None:
    """The jackknife of θ = (Σx/n)², a figure whose plain value is biased by var/n."""
    whole = np.concatenate(groups)
    left_out = [
        np.concatenate([g for i, g in enumerate(groups) if i != j]).mean() ** 2
        for j in range(len(groups))
    ]
    counts = torch.tensor([float(len(g)) for g in groups])
    return jackknife(float(whole.mean() ** 2), torch.tensor(left_out).double(), counts)


@given(st.integers(8, 40), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_equal_groups_give_the_textbook_jackknife(k: int, size: int, seed: int) -> None:
    groups = list(np.random.default_rng(seed).standard_exponential((k, size)))
    found = of_statistic(groups)
    assert found is not None
    left_out = np.array([np.delete(np.stack(groups), j, 0).mean() ** 2 for j in range(k)])
    plain = np.stack(groups).mean() ** 2
    bias = (k - 1) * (left_out.mean() - plain)
    variance = (k - 1) / k * ((left_out - left_out.mean()) ** 2).sum()
    assert found.plain == plain
    assert found.bias == pytest.approx(bias, rel=1e-6, abs=1e-12)
    assert found.debiased == pytest.approx(plain - bias, rel=1e-9, abs=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert found.groups == k


@given(st.lists(st.integers(1, 12), min_size=8, max_size=30), st.integers(0, 2**32 - 1))
def test_unequal_groups_give_the_delete_m_jackknife_of_busing(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [rng.standard_exponential(s) for s in sizes]
    found = of_statistic(groups)
    assert found is not None
    # Busing, Meijer & van der Leeden 1999, equations 6 to 8, term by term.
    n, g = sum(sizes), len(sizes)
    plain = np.concatenate(groups).mean() ** 2
    without = [np.concatenate([x for i, x in enumerate(groups) if i != j]).mean() for j in range(g)]
    theta_j = g * plain - sum((1 - m / n) * w**2 for m, w in zip(sizes, without, strict=True))
    variance = 0.0
    for m, w in zip(sizes, without, strict=True):
        h = n / m
        pseudo = h * plain - (h - 1) * w**2
        variance += (pseudo - theta_j) ** 2 / (h - 1) / g
    assert found.debiased == pytest.approx(theta_j, rel=1e-8, abs=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-8)


def test_debiasing_removes_the_bias_of_the_squared_shift_of_a_sample_mean() -> None:
    """A squared mean overstates μ² by σ²/n: 1 + 1/80 in place of 1, over 4,000 draws."""
    rng = np.random.default_rng(0)
    draws = [of_statistic(list(rng.normal(1.0, 1.0, (16, 5)))) for _ in range(4000)]
    plain = np.array([d.plain for d in draws if d])
    debiased = np.array([d.debiased for d in draws if d])
    error = plain.std() / math.sqrt(len(draws))
    assert plain.mean() - 1 == pytest.approx(1 / 80, abs=3 * error)
    assert abs(debiased.mean() - 1) < 3 * error
    # For a squared mean the jackknife's bias is the unbiased s²/n exactly.
    assert np.mean([d.bias for d in draws if d]) == pytest.approx(1 / 80, rel=0.03)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        found = of_statistic(list(rng.normal(2.0, 1.0, (16, 20))))
        assert found is not None
        low, high = found.interval()
        covered += low <= 4.0 <= high
    assert 0.93 <= covered / 1000 <= 0.97


def test_the_interval_is_students_t_about_the_debiased_figure() -> None:
    found = Jackknife(plain=2.0, bias=0.5, standard_error=0.1, groups=12)
    low, high = found.interval(0.9)
    half = scipy_stats.t.ppf(0.95, 11) * 0.1
    assert (low, high) == pytest.approx((1.5 - half, 1.5 + half))


@pytest.mark.parametrize("k", range(2, MIN_GROUPS))
def test_fewer_than_eight_groups_give_no_interval(k: int) -> None:
    assert of_statistic(list(np.random.default_rng(0).normal(size=(k, 5)))) is None


def test_empty_groups_do_not_count() -> None:
    left_out, counts = torch.rand(12).double(), torch.ones(12)
    counts[:5] = 0
    assert jackknife(0.5, left_out, counts) is None
    counts[4] = 1
    found = jackknife(0.5, left_out, counts)
    assert found is not None
    assert found.groups == 8
    assert found == jackknife(0.5, left_out[4:], torch.ones(8))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_gives_no_interval(bad: float) -> None:
    left_out, counts = torch.rand(10).double(), torch.ones(10)
    assert jackknife(bad, left_out, counts) is None
    left_out[3] = bad
    assert jackknife(0.5, left_out, counts) is None


@given(st.integers(1, 100_000))
def test_samples_are_dealt_to_between_eight_and_sixty_four_groups(n: int) -> None:
    k = group_count(n)
    assert k == (min(n, 8) if n < 160 else min(64, n // 20))


@given(st.integers(1, 3000))
def test_groups_differ_by_at_most_one_sample_and_all_are_used(n: int) -> None:
    group = deal(n, group_count(n))
    sizes = group.bincount(minlength=group_count(n))
    assert len(group) == n
    assert sizes.max() - sizes.min() <= 1
    assert sizes.min() >= 1
    assert bool((group.diff() >= 0).all())


def brute_force_holm(p: list[float], level: float) -> list[bool]:
    """Closed testing with Bonferroni in every subset: what Holm's procedure shortens."""
    m = len(p)
    subsets = [s for size in range(1, m + 1) for s in combinations(range(m), size)]
    rejected = {s: min(p[i] for i in s) <= level / len(s) for s in subsets}
    return [all(rejected[s] for s in subsets if i in s) for i in range(m)]


@given(
    st.lists(st.one_of(st.floats(0, 0.1), st.floats(0, 1)), min_size=0, max_size=7),
    st.sampled_from([0.01, 0.05, 0.2]),
)
def test_holm_rejects_what_closed_testing_rejects(p: list[float], level: float) -> None:
    assert holm(p, level) == brute_force_holm(p, level)


def test_holm_falsely_rejects_in_at_most_five_percent_of_families() -> None:
    rng = np.random.default_rng(0)
    families = [any(holm(rng.uniform(size=19).tolist())) for _ in range(4000)]
    assert np.mean(families) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_the_p_value_is_one_half_at_the_threshold_and_falls_beyond_it() -> None:
    assert upper_tail_p(0.3, 0.1, 10, 0.3) == 0.5
    t = (0.5 - 0.3) / 0.1
    assert upper_tail_p(0.5, 0.1, 10, 0.3) == pytest.approx(1 - scipy_stats.t.cdf(t, 9))
    assert upper_tail_p(0.5, 0.0, 10, 0.3) == 0.0
    assert upper_tail_p(0.3, 0.0, 10, 0.3) == 1.0
