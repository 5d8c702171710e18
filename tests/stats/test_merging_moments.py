"""However a population is cut into parts, its moments come out as in one pass (hypothesis)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnaudit.stats.moments import GroupedMoments, Moments, leave_one_out, merge, pool, scatter


@dataclass(frozen=True)
class Population:
    """Values (n, C), cut into consecutive parts of `sizes`, some of them empty."""

    values: np.ndarray
    sizes: tuple[int, ...]

    def parts(self) -> list[np.ndarray]:
        return np.split(self.values, np.cumsum(self.sizes)[:-1])

    def moments(self) -> Moments:
        return triples(self.parts())


def triples(parts: list[np.ndarray]) -> Moments:
    """(count, mean, M2) of each part, by NumPy in float64."""
    channels = parts[0].shape[1]
    zero = np.zeros(channels)
    mean = [p.mean(0) if len(p) else zero for p in parts]
    m2 = [((p - p.mean(0)) ** 2).sum(0) if len(p) else zero for p in parts]
    count = [float(len(p)) for p in parts]
    return Moments(
        torch.tensor(count).double(), *(torch.from_numpy(np.stack(t)) for t in (mean, m2))
    )


@st.composite
def populations(draw: st.DrawFn, min_parts: int = 1, allow_empty: bool = True) -> Population:
    low = 0 if allow_empty else 1
    sizes = draw(st.lists(st.integers(low, 9), min_size=min_parts, max_size=12))
    if not any(sizes):
        sizes[0] = 1
    channels = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = 10.0 ** draw(st.integers(-6, 6))
    offset = draw(st.sampled_from([0.0, 1.0, -30.0, 1e4])) * spread
    skew = draw(st.booleans())
    values = rng.standard_exponential((sum(sizes), channels)) if skew else None
    if values is None:
        values = rng.standard_normal((sum(sizes), channels))
    # Parts drift apart by whole standard deviations, as consecutive batches may.
    drift = np.repeat(np.arange(len(sizes)) * draw(st.sampled_from([0.0, 1.0, 50.0])), sizes)
    return Population((values + drift[:, None]) * spread + offset, tuple(sizes))


def assert_moments_of(found: Moments, parts: list[np.ndarray]) -> None:
    """Counts are exact; means and M2 agree to rounding in units of the whole population."""
    expected = triples(parts)
    whole = np.concatenate(parts)
    scale = torch.from_numpy(whole.std(0) + np.abs(whole).max(0) * 1e-7 + 1e-300)
    assert torch.equal(found.count, expected.count)
    assert bool((((found.mean - expected.mean) / scale).abs() < 1e-8).all())
    assert bool((((found.m2 - expected.m2) / scale.square()).abs() < 1e-8 * len(whole)).all())


@given(populations())
def test_pooling_any_partition_gives_the_moments_of_one_pass(population: Population) -> None:
    assert_moments_of(pool(population.moments()), [population.values])


@given(populations(), st.randoms(use_true_random=False))
def test_pooling_does_not_depend_on_the_order_of_the_parts(population: Population, rnd) -> None:  # type: ignore[no-untyped-def]
    moments = population.moments()
    order = list(range(len(population.sizes)))
    rnd.shuffle(order)
    assert_moments_of(pool(moments.select(torch.tensor(order))), [population.values])


@given(populations(min_parts=2))
def test_merging_part_by_part_in_any_association_gives_the_moments_of_one_pass(
    population: Population,
) -> None:
    singles = [population.moments().select(torch.tensor([i])) for i in range(len(population.sizes))]
    left = singles[0]
    for part in singles[1:]:
        left = merge(left, part)
    right = singles[-1]
    for part in singles[-2::-1]:
        right = merge(part, right)
    assert_moments_of(left, [population.values])
    assert_moments_of(right, [population.values])


@given(populations())
def test_merging_with_an_empty_part_changes_nothing_at_all(population: Population) -> None:
    moments = population.moments()
    empty = Moments.zeros(*moments.mean.shape)
    for merged in (merge(moments, empty), merge(empty, moments)):
        assert torch.equal(merged.count, moments.count)
        assert torch.equal(merged.mean, moments.mean)
        assert torch.equal(merged.m2, moments.m2)


@given(populations(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_scattering_pools_the_parts_that_share_a_target(
    population: Population, parts: int, seed: int
) -> None:
    target = np.random.default_rng(seed).integers(0, parts, len(population.sizes))
    found = scatter(population.moments(), torch.from_numpy(target), parts)
    by_target = [
        np.concatenate(
            [
                np.empty((0, population.values.shape[1])),
                *[p for p, t in zip(population.parts(), target, strict=True) if t == wanted],
            ]
        )
        for wanted in range(parts)
    ]
    assert_moments_of(found, by_target)


@given(populations(), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_groups_fed_part_by_part_hold_the_moments_of_their_samples(
    population: Population, groups: int, chunk: int, seed: int
) -> None:
    group = np.random.default_rng(seed).integers(0, groups, len(population.sizes))
    moments, account = population.moments(), GroupedMoments(groups, population.values.shape[1])
    for first in range(0, len(group), chunk):
        taken = torch.arange(first, min(first + chunk, len(group)))
        account.add(moments.select(taken), torch.from_numpy(group)[taken])
    nothing = np.empty((0, population.values.shape[1]))
    members = [
        np.concatenate(
            [nothing, *[p for p, g in zip(population.parts(), group, strict=True) if g == wanted]]
        )
        for wanted in range(groups)
    ]
    assert_moments_of(account.moments, members)


@settings(max_examples=60)
@given(populations(min_parts=2, allow_empty=False))
def test_leaving_one_part_out_equals_computing_without_it(population: Population) -> None:
    found = leave_one_out(population.moments())
    parts = population.parts()
    for j in range(len(parts)):
        rest = np.concatenate([p for i, p in enumerate(parts) if i != j])
        one = found.select(torch.tensor([j]))
        whole = np.concatenate(parts)
        scale = torch.from_numpy(whole.std(0) + np.abs(whole).max(0) * 1e-7 + 1e-300)
        expected = triples([rest])
        assert torch.equal(one.count, expected.count)
        assert bool((((one.mean - expected.mean) / scale).abs() < 1e-7).all())
        assert bool((((one.m2 - expected.m2) / scale.square()).abs() < 1e-7 * len(whole)).all())


def test_leaving_out_an_empty_part_leaves_the_whole() -> None:
    values = np.random.default_rng(0).standard_normal((20, 3))
    moments = triples([values[:8], values[:0], values[8:]])
    assert_moments_of(leave_one_out(moments).select(torch.tensor([1])), [values])


def test_merging_keeps_the_digits_where_the_mean_is_a_million_standard_deviations_away() -> None:
    values = np.random.default_rng(1).standard_normal((100_000, 2)) + 1e6
    found = pool(triples(np.array_split(values, 313)))
    np.testing.assert_allclose(found.var[0].numpy(), values.var(0), rtol=1e-9)


def test_the_variance_of_nothing_is_zero() -> None:
    assert Moments.zeros(2, 3).var.tolist() == [[0.0] * 3] * 2
    assert pool(Moments.zeros(4, 2)).var.tolist() == [[0.0, 0.0]]
