"""Before against after on samples of their own: against textbook formulas, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnaudit.stats.independent import Counted, Mean, mean_difference, share_difference


@st.composite
def counts(draw: st.DrawFn) -> Counted:
    n = draw(st.integers(1, 500))
    return Counted(draw(st.integers(0, n)), n)


def test_newcombes_own_example() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339, Newcombe 1998, table II, method 10."""
    found = share_difference(Counted(48, 80), Counted(56, 70))
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@given(counts(), counts(), st.sampled_from([0.95, 0.99, 0.9999]))
def test_it_is_newcombes_interval(before: Counted, after: Counted, level: float) -> None:
    found = share_difference(before, after, level)
    z = scipy_stats.norm.ppf(0.5 + level / 2)
    limits = []
    for x, n in (before, after):
        centre, half = x + z * z / 2, z * math.sqrt(x * (n - x) / n + z * z / 4)
        limits.append(((centre - half) / (n + z * z), (centre + half) / (n + z * z)))
    (l1, u1), (l2, u2) = limits
    p1, p2 = before[0] / before[1], after[0] / after[1]
    low = p2 - p1 - math.hypot(p2 - l2, u1 - p1)
    high = p2 - p1 + math.hypot(u2 - p2, p1 - l1)
    assert found.difference == pytest.approx(p2 - p1, abs=1e-12)
    assert found.low == pytest.approx(max(-1, low), abs=1e-9)
    assert found.high == pytest.approx(min(1, high), abs=1e-9)


@given(counts(), counts())
def test_the_other_way_round_it_is_the_opposite(before: Counted, after: Counted) -> None:
    there, back = share_difference(before, after), share_difference(after, before)
    assert there.difference == pytest.approx(-back.difference)
    assert there.low == pytest.approx(-back.high)  # type: ignore[operator]


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_equal_shares_seldom_differ_at_the_level_of_a_family(p: float) -> None:
    rng = np.random.default_rng(0)
    level = 1 - 0.01 / 12
    pairs = rng.binomial(300, p, (4000, 2)).tolist()
    found = {tuple(x): share_difference(*(Counted(k, 300) for k in x), level) for x in pairs}
    wrong = sum(f.low > 0 or f.high < 0 for f in (found[tuple(x)] for x in pairs))  # type: ignore[operator]
    assert wrong <= scipy_stats.binom.ppf(0.999, len(pairs), 0.01 / 12)


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.7), (0.99, 0.97), (0.5, 0.52)])
def test_the_interval_holds_the_true_difference(before: float, after: float) -> None:
    rng = np.random.default_rng(1)
    old, new = rng.binomial(400, before, 2000).tolist(), rng.binomial(250, after, 2000).tolist()
    covered = 0
    for a, b in zip(old, new, strict=True):
        found = share_difference(Counted(a, 400), Counted(b, 250))
        covered += found.low <= after - before <= found.high  # type: ignore[operator]
    assert covered / 2000 >= 0.935


def test_means_differ_with_the_error_of_both() -> None:
    found = mean_difference(Mean(1.0, 0.3), Mean(2.0, 0.4))
    assert found == pytest.approx((1.0, 2.0, 1.0, 1 - 1.959964 * 0.5, 1 + 1.959964 * 0.5))


@pytest.mark.parametrize("errors", [(None, 0.1), (0.1, None), (None, None)])
def test_a_mean_without_its_error_has_a_difference_without_limits(
    errors: tuple[float | None, float | None],
) -> None:
    found = mean_difference(Mean(1.0, errors[0]), Mean(2.0, errors[1]))
    assert found == (1.0, 2.0, 1.0, None, None)


def test_no_samples_have_no_share() -> None:
    with pytest.raises(ValueError, match="no share"):
        share_difference(Counted(0, 0), Counted(1, 2))
