"""Batches that belong together, and the intervals of what they change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from worlds import (
    Outcome,
    by_distance_of_the_mean,
    by_mates_alike,
    by_own_features,
    draw_of,
)

from bnaudit.stats.arranged import (
    Drawn,
    clustered_mean,
    clustered_share,
    difference,
    share_difference,
    turned,
)
from bnaudit.stats.arrangements import (
    by_group,
    grouped,
    of_one_group,
    purity,
    shuffled,
    with_strangers,
)


@given(st.lists(st.integers(0, 4), min_size=8, max_size=80), st.integers(2, 8), st.integers(0, 99))
def test_batches_hold_each_sample_once_and_as_many_as_fit(
    given_groups: list[int], size: int, seed: int
) -> None:
    groups = np.array(given_groups)
    pure = of_one_group(groups, size, np.random.default_rng(seed))
    assert pure.size == sum(n // size * size for n in np.unique(groups, return_counts=True)[1])
    assert all(len(set(groups[batch])) == 1 for batch in pure)
    others = [make(groups, size, np.random.default_rng(seed)) for make in (by_group, grouped)] + [
        shuffled(len(groups), size, np.random.default_rng(seed))
    ]
    for batches in (pure, *others):
        assert len(np.unique(batches)) == batches.size
    assert others[0].size == others[2].size == len(groups) // size * size
    assert (np.diff(groups[others[0].reshape(-1)]) >= 0).all()


def test_groups_too_small_for_a_batch_are_mixed_with_their_neighbours() -> None:
    groups = np.repeat(np.arange(20), 3)
    batches = grouped(groups, 8, np.random.default_rng(0))
    assert batches.shape == (7, 8)
    assert purity(batches, groups) == pytest.approx(3 / 8, abs=0.05)


def test_strangers_are_samples_of_another_group_than_their_mates() -> None:
    groups = np.repeat(np.arange(3), 16)
    batches = of_one_group(groups, 8, np.random.default_rng(0))
    mixed, strange = with_strangers(batches, groups, 2, np.random.default_rng(1))
    assert sorted(mixed.reshape(-1)) == sorted(batches.reshape(-1))
    assert not strange[:, 2:].any()
    assert strange.any()
    for batch, is_strange in zip(mixed, strange, strict=True):
        mates = groups[batch[-1]]
        assert (groups[batch[is_strange]] != mates).all()
        assert (groups[batch[~is_strange]] == mates).all()


@pytest.mark.parametrize("outcome", [by_own_features, by_mates_alike, by_distance_of_the_mean])
def test_intervals_cover_at_least_as_often_as_they_say(outcome: Outcome) -> None:
    """New samples, shuffles and batches each time: 150 times, against the mean of large worlds."""
    rng = np.random.default_rng(0)
    truth = np.mean([draw_of(rng, 20_000, outcome, 1).difference for _ in range(6)])
    found = [draw_of(rng, 400, outcome, 3) for _ in range(150)]
    covered = np.mean([one.low <= truth <= one.high for one in found])  # type: ignore[operator]
    assert covered >= 0.92  # 95% less 1.7 standard deviations of 150 trials
    widths = [one.high - one.low for one in found]  # type: ignore[operator]
    errors = [abs(one.difference - truth) for one in found]
    assert np.mean(widths) < 12 * np.mean(errors) + 0.05  # and not for being of no use


def test_without_covariance_in_batches_the_interval_is_that_of_paired_samples() -> None:
    """Outcomes that no mate touches: Student's paired interval, from SciPy."""
    rng = np.random.default_rng(0)
    n = 4000
    one = rng.normal(size=n)
    places = [np.repeat(np.arange(n // 8), 8)[rng.permutation(n)][None] for _ in range(2)]
    before, after = (
        Drawn(one[None], places[0]),
        Drawn((one + rng.normal(0.1, 1, n))[None], places[1]),
    )
    found = difference(before, after, np.zeros(n, np.int64))
    assert found is not None
    expected = stats.ttest_rel(after.values[0], before.values[0])
    interval = expected.confidence_interval()
    assert found.difference == pytest.approx(0.1, abs=0.05)
    assert found.low == pytest.approx(interval.low, abs=0.15 * (interval.high - interval.low))
    assert found.high == pytest.approx(interval.high, abs=0.15 * (interval.high - interval.low))
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)


def test_batches_that_share_their_luck_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    n = 800
    batch = np.repeat(np.arange(100), 8)
    luck = rng.normal(size=100)[batch]
    alone, shared = rng.normal(size=n), 0.6 * luck + 0.8 * rng.normal(size=n)
    other = Drawn(np.zeros((1, n)), rng.permutation(batch)[None])
    widths = []
    for values in (alone, shared):
        found = difference(other, Drawn(values[None], batch[None]), np.zeros(n, np.int64))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[1] > 1.5 * widths[0]  # √(1 + 7·0.36) = 1.9


def test_too_few_batches_withhold_the_limits() -> None:
    values = Drawn(np.array([[1.0, 0, 1, 0, 1, 1, 0, 0]]), np.repeat([0, 1], 4)[None])
    found = share_difference(values, values, np.zeros(8, np.int64))
    assert found is not None
    assert found.difference == 0
    assert (found.low, found.high, found.p_value) == (None, None, None)
    nowhere = Drawn(np.full((1, 8), np.nan), np.full((1, 8), -1))
    assert share_difference(values, nowhere, np.zeros(8, np.int64)) is None


def test_no_difference_at_all_has_an_interval_all_the_same() -> None:
    values = Drawn(np.ones((2, 80)), np.tile(np.repeat(np.arange(10), 8), (2, 1)))
    found = share_difference(values, values, np.zeros(80, np.int64))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert -0.1 < found.low < 0 < found.high < 0.1


def test_a_mean_of_samples_that_come_again_is_no_surer_for_it() -> None:
    rng = np.random.default_rng(0)
    once = rng.normal(size=100)
    alone = clustered_mean(once, np.arange(100), np.arange(100) // 4)
    again = clustered_mean(np.tile(once, 5), np.tile(np.arange(100), 5), np.arange(500) // 4)
    assert alone.low is not None
    assert again.low is not None
    assert again.value == pytest.approx(alone.value)
    assert again.value - again.low == pytest.approx(alone.value - alone.low, rel=0.25)


def test_strangers_are_compared_with_themselves_in_shuffled_batches() -> None:
    said, wanted = np.array([2, 2, 0, 1]), np.array([2, 1, 0, 1])
    samples = np.array([0, 1, 2, 4])
    shuffled_said = np.array([[2, 0, 0, 1, -1], [0, 1, 0, -1, -1]])
    read, before = turned(said, wanted, samples, shuffled_said)
    assert read.tolist() == [1, 0, 1, 1]
    # The last was never placed: how often any sample is read as class 1, 2 times of 7.
    assert before == pytest.approx([0.5, 0.5, 1, 2 / 7])


def test_two_classes_can_be_told_too() -> None:
    """Of two classes, what is not the own one is the mates': dealing classes anew tells nothing."""
    own = np.arange(40) % 2
    follows, ignores = 1 - own, own
    fair = np.stack([own, np.where(np.arange(40) % 4 < 2, own, 1 - own)])
    read, before = turned(follows, 1 - own, np.arange(40), fair)
    assert clustered_mean(read - before, np.arange(40), np.arange(40) // 4).value == 0.75
    read, before = turned(ignores, 1 - own, np.arange(40), fair)
    assert clustered_mean(read - before, np.arange(40), np.arange(40) // 4).value == -0.25


def test_no_difference_is_never_significant() -> None:
    """Outcomes that are the same on both sides, and vary in no sample or in every one."""
    rng = np.random.default_rng(0)
    batches = np.tile(np.repeat(np.arange(10), 8), (2, 1))
    for values in (np.ones((2, 80)), np.tile(rng.normal(size=80), (2, 1))):
        side = Drawn(values, batches)
        for test in (difference, share_difference):
            found = test(side, side, np.zeros(80, np.int64))
            assert found is not None
            assert found.difference == 0
            assert found.p_value == 1
    assert clustered_mean(np.zeros(40), np.arange(40), np.arange(40) // 4).p_value == 1


def test_a_difference_that_varies_nowhere_has_no_interval() -> None:
    batches = np.repeat(np.arange(10), 8)[None]
    before, after = Drawn(np.zeros((1, 80)), batches), Drawn(np.full((1, 80), 0.25), batches)
    found = difference(before, after, np.zeros(80, np.int64))
    assert found is not None
    assert (found.difference, found.low, found.high, found.p_value) == (0.25, None, None, None)
    mean = clustered_mean(np.full(40, 0.25), np.arange(40), np.arange(40) // 4)
    assert mean == (0.25, None, None, None)


def test_strangers_who_all_follow_their_mates_are_significant_all_the_same() -> None:
    found = clustered_share(np.ones(40), np.arange(40), np.arange(40) // 4)
    assert found.low is not None
    assert 0.6 < found.low < 1  # of ten batches
    assert found.p_value is not None
    assert found.p_value < 1e-3
    none = clustered_share(np.zeros(40), np.arange(40), np.arange(40) // 4)
    assert none.p_value == 0.5
