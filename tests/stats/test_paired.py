"""Before against after: intervals against independent oracles, and how often they cover."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats

from bnaudit.stats.paired import (
    MIN_PAIRS,
    Paired,
    accuracy_change,
    mcnemar,
    mean_change,
    samples_to_settle,
    share,
)
from bnaudit.stats.roots import (
    MIN_GROUPS,
    RootFigure,
    jackknife_change,
    jackknife_root,
    root_difference,
)


@st.composite
def discordant_pairs(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 400))
    only_before = draw(st.integers(0, n))
    return only_before, draw(st.integers(0, n - only_before)), n


def score_by_search(only_before: int, only_after: int, n: int, delta: float) -> float:
    """z(Δ) with the nuisance probability found by maximising the likelihood numerically."""
    low, high = max(0.0, -delta), (1 - delta) / 2

    def log_likelihood(q: float) -> float:
        cells = [(only_after, q + delta), (only_before, q)]
        cells.append((n - only_before - only_after, 1 - 2 * q - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    q = optimize.minimize_scalar(
        log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}
    ).x
    variance = n * (2 * q + delta - delta**2)
    return float((only_after - only_before - n * delta) / math.sqrt(variance))


@given(discordant_pairs())
def test_the_limits_of_an_accuracy_change_are_where_the_score_test_rejects(
    counts: tuple[int, int, int],
) -> None:
    only_before, only_after, n = counts
    found = accuracy_change(only_before, only_after, 0, n)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.difference <= found.high <= 1
    for limit, z in ((found.low, 1.959964), (found.high, -1.959964)):
        if abs(limit) < 0.999:
            by_search = score_by_search(only_before, only_after, n, limit)
            assert by_search == pytest.approx(z, rel=2e-3)


@given(discordant_pairs())
def test_exchanging_before_and_after_turns_the_accuracy_interval_round(
    counts: tuple[int, int, int],
) -> None:
    only_before, only_after, n = counts
    one, other = accuracy_change(*counts[:2], 0, n), accuracy_change(only_after, only_before, 0, n)
    assert one.low is not None
    assert other.high is not None
    assert one.difference == -other.difference
    assert one.low == pytest.approx(-other.high, abs=1e-9)


def test_an_accuracy_change_counts_what_both_get_right() -> None:
    found = accuracy_change(50, 334, 1130, 2000)
    assert found[:3] == pytest.approx((0.59, 0.732, 0.142))


def test_counts_that_do_not_fit_are_refused() -> None:
    for counts in ((5, 5, 1, 10), (-1, 0, 0, 10), (0, 0, 0, 0)):
        with pytest.raises(ValueError, match="do not fit"):
            accuracy_change(*counts)


@cache
def limits(n: int, most: int) -> dict[tuple[int, int], tuple[float, float]]:
    table = {}
    for only_before in range(most + 1):
        for only_after in range(min(most, n - only_before) + 1):
            found = accuracy_change(only_before, only_after, 0, n)
            assert found.low is not None
            assert found.high is not None
            table[only_before, only_after] = (found.low, found.high)
    return table


def exact_coverage(n: int, discordance: float, share_after: float) -> float:
    """The probability of all outcomes whose interval holds the true difference."""
    p_after, p_before = discordance * share_after, discordance * (1 - share_after)
    expected = n * discordance
    most = min(n, int(expected + 8 * math.sqrt(expected) + 10))
    table = limits(n, min(n, (most + 19) // 20 * 20))
    pairs = np.array(list(table))
    ends = np.array(list(table.values()))
    true = p_after - p_before
    covers = (ends[:, 0] <= true + 1e-12) & (true - 1e-12 <= ends[:, 1])
    outcomes = np.column_stack([pairs[:, 1], pairs[:, 0], n - pairs.sum(1)])
    p = scipy_stats.multinomial.pmf(outcomes, n, [p_after, p_before, 1 - discordance])
    assert p.sum() == pytest.approx(1, abs=1e-4)
    return float(p[covers].sum())


DIRECTIONS = (0.5, 0.7, 0.9, 1.0)


@pytest.mark.parametrize("n", [10, 20, 50])
def test_the_accuracy_interval_covers_with_few_samples(n: int) -> None:
    grid = [(d, s) for d in (0.005, 0.02, 0.05, 0.1, 0.2, 0.4) for s in DIRECTIONS]
    assert min(exact_coverage(n, d, s) for d, s in grid) >= 0.93


def test_the_accuracy_interval_covers_with_few_discordant_pairs() -> None:
    assert min(exact_coverage(1000, d, s) for d in (0.002, 0.005, 0.01) for s in DIRECTIONS) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 200, 400, 1000])
def test_the_accuracy_interval_covers_everywhere(n: int) -> None:
    grid = [(d, s) for d in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4) for s in DIRECTIONS]
    assert min(exact_coverage(n, d, s) for d, s in grid if n * d <= 100) >= 0.93


def test_mcnemars_p_value_is_that_of_a_fair_coin() -> None:
    # 1 of 9 heads or fewer, both tails: 2 (1 + 9) / 2⁹.
    assert mcnemar(1, 8) == pytest.approx(20 / 512)
    assert mcnemar(8, 1) == pytest.approx(20 / 512)
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(4, 4) == 1.0
    assert mcnemar(0, 0) == 1.0


@given(st.integers(1, 5000), st.data())
def test_a_share_has_wilsons_interval(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    found = share(successes, n)
    z = scipy_stats.norm.ppf(0.975)
    # The limits solve |p̂ − p| = z √(p (1 − p) / n).
    for limit in (found.low, found.high):
        gap = (found.value - limit) ** 2
        assert gap == pytest.approx(z**2 * limit * (1 - limit) / n, abs=1e-9)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_a_share_of_nothing_is_refused() -> None:
    for successes, n in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="no share"):
            share(successes, n)


def settled(only_before: float, only_after: float, n: int, max_loss: float) -> float:
    """The share of 400 draws at these rates whose interval clears the margin."""
    rng = np.random.default_rng(0)
    cells = [only_before, only_after, 1 - only_before - only_after]
    count = 0
    for before, after, _ in rng.multinomial(n, cells, 400).tolist():
        low, high = accuracy_change(before, after, 0, n)[3:]
        assert low is not None
        assert high is not None
        count += (low > -max_loss) if only_after - only_before > -max_loss else (high < -max_loss)
    return count / 400


@pytest.mark.parametrize(
    ("only_before", "only_after", "max_loss"),
    [(20, 22, 0.005), (30, 20, 0.02), (80, 20, 0.005), (5, 40, 0.0)],
)
def test_the_number_of_samples_that_would_settle_it_does(
    only_before: int, only_after: int, max_loss: float
) -> None:
    n = 1000
    needed = samples_to_settle(only_before, only_after, n, max_loss)
    assert needed is not None
    rates = (only_before / n, only_after / n)
    assert 0.35 < settled(*rates, needed, max_loss) < 0.68
    assert settled(*rates, 2 * needed, max_loss) > 0.7
    assert settled(*rates, 4 * needed, max_loss) > 0.93


@given(discordant_pairs(), st.one_of(st.just(0.0), st.floats(1e-5, 0.1)))
def test_an_undecided_case_needs_more_samples_than_it_has(
    counts: tuple[int, int, int], max_loss: float
) -> None:
    found = accuracy_change(*counts[:2], 0, counts[2])
    needed = samples_to_settle(*counts, max_loss)
    assert found.low is not None
    assert found.high is not None
    if needed is not None:
        assert float(f"{needed:.1e}") == needed
        if found.low < -max_loss - 1e-9 and found.high > -max_loss + 1e-9:
            assert needed >= counts[2]


@pytest.mark.parametrize("counts", [(10, 0, 2000), (10_010, 10, 2_000_000), (10_001, 0, 2_000_000)])
def test_at_the_margin_no_number_of_samples_would_do(counts: tuple[int, int, int]) -> None:
    assert samples_to_settle(*counts, 0.005) is None


def test_without_a_discordant_pair_the_margin_alone_says_how_many_would_do() -> None:
    # z(−δ) = √(nδ / (1 − δ)), so n = 1.96² · 0.995 / 0.005 = 764.5.
    assert samples_to_settle(0, 0, 100, 0.005) == 770
    assert samples_to_settle(0, 0, 100, 0.0) is None


Draw = Callable[[np.random.Generator, int], np.ndarray]

DIFFERENCES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(0.1, 1, n), 0.1),
    "exponential": (lambda rng, n: -rng.exponential(1, n), -1.0),
    "some differ": (
        lambda rng, n: np.where(rng.random(n) < 0.15, rng.normal(-1, 2, n), rng.normal(0, 0.02, n)),
        -0.15,
    ),
    "few lose much": (
        lambda rng, n: np.where(
            rng.random(n) < 0.2, rng.lognormal(0, 1, n), -rng.lognormal(-3, 1, n)
        ),
        0.2 * math.exp(0.5) - 0.8 * math.exp(-2.5),
    ),
}


def bootstrap_coverage(name: str, n: int, draws: int) -> float:
    draw, true = DIFFERENCES[name]
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(draws):
        before = rng.lognormal(0, 1, n)
        found = mean_change(before, before + draw(rng, n), seed)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    return covered / draws


@pytest.mark.parametrize("name", ["normal", "few lose much"])
def test_the_bootstrap_interval_of_a_mean_covers(name: str) -> None:
    assert bootstrap_coverage(name, 200, 200) >= 0.91


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize(("n", "least"), [(50, 0.88), (200, 0.925), (1000, 0.93)])
def test_the_bootstrap_interval_of_a_mean_covers_by_sample_size(
    name: str, n: int, least: float
) -> None:
    assert bootstrap_coverage(name, n, 1000) >= least


def test_the_bootstrap_is_that_of_its_seed_and_of_no_other_generator() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.lognormal(size=(2, 100))
    np.random.seed(7)
    state = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    first = mean_change(before, after, 3)
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index, union-attr]
    assert mean_change(before, after, 3) == first
    assert mean_change(before, after, 4) != first


def test_the_bootstrap_of_many_samples_is_students_interval() -> None:
    rng = np.random.default_rng(0)
    before = rng.lognormal(0, 1, 10_000)
    after = before + rng.normal(0.01, 0.3, 10_000)
    found = mean_change(before, after, 0)
    assert found is not None
    assert found[:2] == pytest.approx((before.mean(), after.mean()))
    half = 1.96 * (after - before).std() / 100
    middle = (after - before).mean()
    assert found[2:] == pytest.approx((middle, middle - half, middle + half), abs=0.06 * half)


@given(st.lists(st.floats(-1e6, 1e6), min_size=MIN_PAIRS, max_size=40), st.integers(0, 99))
def test_a_difference_lies_within_its_bootstrap_limits(after: list[float], seed: int) -> None:
    found = mean_change(np.zeros(len(after)), np.array(after), seed)
    assert found is not None
    if found.low is not None and found.high is not None:
        assert found.low <= found.difference <= found.high


def test_what_is_the_same_on_both_sides_differs_by_nothing() -> None:
    same = np.random.default_rng(0).lognormal(size=50)
    assert mean_change(same, same, 0) == Paired(same.mean(), same.mean(), 0.0, 0.0, 0.0)


def test_limits_are_withheld_where_they_would_be_guesses() -> None:
    few = np.arange(MIN_PAIRS - 1.0)
    assert mean_change(few, few[::-1], 0)[3:] == (None, None)  # type: ignore[index]
    one_differs = np.zeros(20)
    one_differs[3] = 1.0
    assert mean_change(np.zeros(20), one_differs, 0)[2:] == (0.05, None, None)  # type: ignore[index]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308])
def test_means_that_are_not_finite_are_no_figures(bad: float) -> None:
    good = np.ones(20)
    broken = good.copy()
    broken[4:6] = bad
    assert mean_change(good, broken, 0) is None
    assert mean_change(broken, good, 0) is None
    assert mean_change(np.ones(0), np.ones(0), 0) is None


def squared_means(
    rng: np.random.Generator, samples: int, offsets: tuple[np.ndarray, np.ndarray]
) -> tuple[Paired | None, float]:
    """The jackknife of √mean((x̄ − offset)²) on both sides of the same samples, and the truth.

    Offsets (C,) stand for estimated means, of which the true one is 0: the squared figures are
    biased by 1/n and, with an offset of 0, have no variance to first order, as layer shifts.
    """
    channels = len(offsets[0])
    k = max(8, min(64, samples // 20))
    x = rng.normal(size=(samples, channels)) + 0.5 * rng.normal(size=(samples, 1))
    group = np.arange(samples) * k // samples
    sizes = np.bincount(group, minlength=k)
    sums = np.stack([np.bincount(group, column, k) for column in x.T], 1)
    mean, without = x.mean(0), (sums.sum(0) - sums) / (samples - sizes)[:, None]
    sides = []
    for offset in offsets:
        sides += [float(((mean - offset) ** 2).mean()), ((without - offset) ** 2).mean(1)]
    roots = [math.sqrt(float((offset**2).mean())) for offset in offsets]
    return jackknife_change(*sides), roots[1] - roots[0]


CASES = [(0.5, 0.0), (0.5, 0.05), (0.1, 0.0), (0.05, 0.1), (0.03, 0.03), (0.0, 0.0)]


def jackknife_coverage(samples: int, before: float, after: float, draws: int) -> float:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(draws):
        directions = rng.normal(size=(2, 24))
        directions /= np.sqrt((directions**2).mean(1, keepdims=True))
        found, true = squared_means(rng, samples, (before * directions[0], after * directions[1]))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.difference <= found.high
        covered += found.low <= true <= found.high
    return covered / draws


@pytest.mark.parametrize(("before", "after"), CASES)
def test_the_jackknife_interval_of_a_change_covers(before: float, after: float) -> None:
    assert jackknife_coverage(160, before, after, 300) >= 0.91


@pytest.mark.slow
@pytest.mark.parametrize("samples", [160, 500, 2000])
@pytest.mark.parametrize(("before", "after"), CASES)
def test_the_jackknife_interval_of_a_change_covers_by_sample_size(
    samples: int, before: float, after: float
) -> None:
    assert jackknife_coverage(samples, before, after, 1000) >= 0.925


@given(st.integers(MIN_GROUPS, 40), st.integers(0, 2**32 - 1))
def test_the_root_is_that_of_the_textbook_jackknife(k: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_exponential((k, 5))
    squared = float(x.mean() ** 2)
    left_out = np.array([np.delete(x, j, 0).mean() ** 2 for j in range(k)])
    found = jackknife_root(squared, left_out)
    assert found is not None
    pseudo = k * squared - (k - 1) * left_out
    half = scipy_stats.t.ppf(0.975, k - 1) * pseudo.std(ddof=1) / math.sqrt(k)
    expected = [pseudo.mean(), pseudo.mean() - half, pseudo.mean() + half]
    assert found[:3] == pytest.approx([math.sqrt(max(0, e)) for e in expected], abs=1e-9)


def test_too_few_or_unlike_groups_give_no_interval() -> None:
    ones = np.ones(MIN_GROUPS)
    assert jackknife_root(1.0, ones[1:]) is None
    assert jackknife_root(math.nan, ones) is None
    assert jackknife_root(1.0, ones * math.inf) is None
    assert jackknife_change(1.0, ones, 1.0, np.ones(MIN_GROUPS + 1)) is None


def test_two_roots_that_go_together_differ_by_a_narrower_interval() -> None:
    nothing = np.zeros(8)
    old, new = RootFigure(0.5, 0.4, 0.6, nothing), RootFigure(0.3, 0.2, 0.4, nothing)
    apart, together = root_difference(old, new, 0.0), root_difference(old, new, 1.0)
    half = math.hypot(0.1, 0.1)
    assert apart[2:] == pytest.approx((-0.2, -0.2 - half, -0.2 + half))
    assert together[2:] == pytest.approx((-0.2, -0.2, -0.2))
