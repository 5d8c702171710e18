"""One normalisation batch size: shuffled batches against batches that belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bnaudit.results.change import Change
from bnaudit.results.leakage import Arrangement, SizeLeakage, Strangers
from bnaudit.results.scores import Figure, Scores
from bnaudit.stats.arranged import (
    Difference,
    Floats,
    clustered_mean,
    clustered_share,
    difference,
    share_difference,
)
from bnaudit.stats.arrangements import (
    Ints,
    grouped,
    in_order,
    of_one_group,
    purity,
    shuffled,
    with_strangers,
)
from bnaudit.stats.paired import share
from bnaudit.verbs.leakage_pass import NO_CLASS, Outcome, Runner, drawn
from bnaudit.verbs.leakage_probe import LEAST_SIZE, strangers_in, strangers_read

CLASS = "class"


def deployed_scores(outcome: Outcome) -> Scores:
    """The network under its own statistics."""
    known = np.isfinite(outcome.correct)
    n = int(known.sum())
    accuracy = loss = None
    if n:
        accuracy = Figure(*share(int(outcome.correct[known].sum()), n))
        mean = float(outcome.loss[known].mean())
        loss = Figure(mean) if np.isfinite(mean) else None
    return Scores(len(outcome.correct), n, accuracy, loss)


def look_at_size(
    runner: Runner,
    deployed: Outcome,
    groups: dict[str, Ints | None],
    size: int,
    draws: int,
    seed: int,
) -> SizeLeakage:
    """Run the arrangements of one size. Inside `conditions.entered(model)`."""
    pool = runner.pool
    rng = np.random.default_rng((seed, size))
    kept: set[str] = set()

    def run(batches: Ints) -> Outcome:
        outcome, layers = runner.mini_batches(batches)
        kept.update(layers)
        return outcome

    dealt = [shuffled(pool.samples, size, rng) for _ in range(draws)]
    mixed = [run(batches) for batches in dealt]
    found = []
    for by, of_samples in groups.items():
        made = (
            [in_order(pool.order, size)]
            if of_samples is None
            else [grouped(of_samples, size, rng) for _ in range(draws)]
        )
        together = [run(batches) for batches in made]
        told = of_samples if of_samples is not None else pool.labels
        pure = _mean_purity(made, told)
        strata = of_samples if of_samples is not None and pure == 1 else None
        found.append(
            _arrangement(
                by,
                None if of_samples is None else len(np.unique(of_samples)),
                (pure, _mean_purity(dealt, told)),
                len(made[0]),
                strata if strata is not None else np.zeros(pool.samples, np.int64),
                (deployed, mixed, together),
            )
        )
    strangers = None
    if groups.get(CLASS) is not None and pool.labels is not None:
        alike = np.stack([one.predicted for one in mixed])
        strangers = _strangers(run, pool.labels, alike, size, rng)
    return SizeLeakage(
        size,
        _shuffled_scores(mixed, deployed),
        draws,
        _flips(mixed),
        tuple(found),
        strangers,
        tuple(sorted(kept)),
    )


def _mean_purity(draws: Sequence[Ints], groups: Ints | None) -> float | None:
    if groups is None:
        return None
    return float(np.mean([purity(batches, groups) for batches in draws]))


def _arrangement(
    by: str,
    groups: int | None,
    purities: tuple[float | None, float | None],
    batches: int,
    strata: Ints,
    outcomes: tuple[Outcome, Sequence[Outcome], Sequence[Outcome]],
) -> Arrangement:
    deployed, mixed, together = outcomes

    def compared(
        figure: Callable[[Outcome], Floats], test: Callable[..., Difference | None]
    ) -> Difference | None:
        sides = [drawn(side, [figure(one) for one in side]) for side in (mixed, together)]
        return test(*sides, strata)

    accuracy = compared(lambda one: one.correct, share_difference)
    agreement = compared(deployed.agrees, share_difference)
    loss = None
    if all(_finite_losses(one) for one in (*mixed, *together)):
        loss = compared(lambda one: one.loss, difference)
    main = accuracy or agreement
    return Arrangement(
        by,
        groups,
        purities[0],
        batches,
        len(together),
        main.samples if main else 0,
        _change(accuracy),
        _change(loss),
        _change(agreement),
        main.p_value if main else None,
        purities[1],
    )


def _finite_losses(outcome: Outcome) -> bool:
    """Whether the loss of everything with a place and a label is a number."""
    return bool(np.isfinite(outcome.loss[np.isfinite(outcome.correct)]).all())


def _change(found: Difference | None) -> Change | None:
    if found is None:
        return None
    return Change(found.before, found.after, found.difference, found.low, found.high)


def _shuffled_scores(draws: Sequence[Outcome], deployed: Outcome) -> Scores:
    labelled = np.isfinite(deployed.correct)
    finite = all(_finite_losses(one) for one in draws)
    return Scores(
        len(deployed.correct),
        int(labelled.sum()),
        _mean(draws, [one.correct for one in draws], 1.0),
        _mean(draws, [one.loss for one in draws]) if finite else None,
        _mean(draws, [deployed.agrees(one) for one in draws], 1.0),
    )


def _flips(draws: Sequence[Outcome]) -> Figure | None:
    """How often a sample's top-1 class is another one in another shuffle."""
    if len(draws) < 2:
        return None
    values = []
    for one in draws:
        others = np.stack([one.agrees(other) for other in draws if other is not one])
        known = np.isfinite(others)
        same = np.where(known, others, 0.0).sum(0) / np.maximum(known.sum(0), 1)
        values.append(np.where(known.any(0), 1 - same, np.nan))
    return _mean(draws, values, 1.0)


def _mean(
    draws: Sequence[Outcome], values: Sequence[Floats], most: float = np.inf
) -> Figure | None:
    """Of all samples in all draws, with the interval that counts both; None of nothing."""
    of_draws = drawn(draws, values)
    known = np.isfinite(of_draws.values)
    if not known.any():
        return None
    draw, sample = np.nonzero(known)
    batch = of_draws.batches[known] + draw * (of_draws.batches.max() + 1)
    estimate = clustered_share if most == 1 else clustered_mean
    mean = estimate(of_draws.values[known], sample, batch)
    if mean.low is None or mean.high is None:
        return Figure(mean.value)
    return Figure(mean.value, max(0.0, mean.low), min(most, mean.high))


def _strangers(
    run: Callable[[Ints], Outcome],
    labels: Ints,
    alike: Ints,
    size: int,
    rng: np.random.Generator,
) -> Strangers | None:
    """What the network says of samples among mates of one other class.

    `alike` (draws, n): what it says of them in shuffled batches.
    """
    if size < LEAST_SIZE:
        return None
    asked: list[tuple[Ints, Ints, Ints, Ints]] = []
    for draw in range(len(alike)):
        batches = of_one_group(labels, size, rng)
        if len(np.unique(labels[batches[:, -1]])) < 2:
            return None
        mixed, strange = with_strangers(batches, labels, strangers_in(size), rng)
        outcome = run(mixed)
        here = np.flatnonzero(strange.reshape(-1))
        samples, mates = mixed.reshape(-1)[here], labels[batches[here // size, -1]]
        said = outcome.predicted[samples]
        asked.append((said, mates, samples, draw * len(batches) + here // size))
    said, mates, samples, batch = (np.concatenate(parts) for parts in zip(*asked, strict=True))
    known = said != NO_CLASS
    if not known.any():
        return None
    said, mates, samples, batch = (part[known] for part in (said, mates, samples, batch))
    change, own, p_value = strangers_read(alike, said, mates, labels[samples], samples, batch)
    return Strangers(len(said), own, change, p_value)
