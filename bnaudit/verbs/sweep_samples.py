"""`sweep samples`: recalibration on more and more samples.

Wu & Johnson 2021 (arXiv:2105.07576), section 3: how many samples precise statistics need.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
from torch import nn

from bnaudit.engine.regroup import regrouped
from bnaudit.engine.variants import Array, Outcomes
from bnaudit.errors import InputError
from bnaudit.findings.conclude import conclude
from bnaudit.results import Change
from bnaudit.results.scores import Figure, Scores
from bnaudit.results.sweep import Sweep, SweepData, SweepPoint
from bnaudit.stats.draws import (
    accuracy_change_over_draws,
    mean_change_over_draws,
    over_draws,
)
from bnaudit.verbs.calibration_pool import CalibrationPool, calibration_pool
from bnaudit.verbs.enough_samples import OfSize, enough_samples
from bnaudit.verbs.held_out import (
    NewStatistics,
    Residual,
    Tried,
    held_out_sources,
    try_statistics,
)
from bnaudit.verbs.scores import scores_of
from bnaudit.verbs.sources import Source
from bnaudit.verbs.sweep_values import checked_draws, checked_values, doubling
from bnaudit.verbs.workbench import Data, RunOptions, Workbench, workbench

DRAWS = 5


def sweep_samples(
    model: nn.Module,
    data: Data,
    *,
    values: Sequence[int] | None = None,
    draws: int = DRAWS,
    verify: Data | None = None,
    verify_split: float | None = None,
    verify_samples: int | None = None,
    **options: Unpack[RunOptions],
) -> Sweep:
    """Recalibrate exactly on n samples, for several n, and try the statistics on held-out data.

    For each n several random subsets of `data` are drawn; figures are means over these draws, with
    Student's interval over them. Differences (from the estimates, from the statistics of all
    samples) are paired by sample, and their intervals hold the chance of the samples and of the
    draws. The residual is the debiased ESM of the layers under the new statistics, on the held-out
    data. A size that takes all samples has one draw. The model is left as it was.

    Args:
        model: as for `bnaudit.measure`.
        data: what subsets are drawn from; labels are not needed. `samples` of them are read.
        values: numbers of samples, 2 or more; default 16, 32, … up to all.
        draws: subsets of each size.
        verify: held-out data; with labels they give accuracies and losses.
        verify_split: instead, the share of `data` that is held out (default a half).
        verify_samples: at most so many held-out samples are read.
        options: see `RunOptions`.

    Returns:
        The Sweep: `sweep.points`, `sweep.conclusion("enough-samples")`, `sweep.to_frame()`.

    Raises:
        InputError: sizes beyond what the data hold, among others as `bnaudit.recalibrate`.

    Example:
        >>> sweep = bnaudit.sweep_samples(model, train, verify=test)  # doctest: +SKIP
        >>> sweep.conclusion("enough-samples").value  # doctest: +SKIP
    """
    bench = workbench(model, data, **options)
    sources = held_out_sources(bench, verify, verify_split, verify_samples, options)
    return sweep_samples_with(bench, *sources, values, draws)


def sweep_samples_with(
    bench: Workbench,
    calibration: Source,
    held_out: Source,
    values: Sequence[float] | None,
    draws: int = DRAWS,
) -> Sweep:
    """The same for a workbench, with data in two parts."""
    wanted = checked_values("samples", values) if values is not None else None
    draws = checked_draws(draws)
    subject = bench.subject
    with subject.conditions.entered(subject.model):
        pool = calibration_pool(bench, calibration, bench.say)
        sizes = _sizes(wanted, pool)
        subsets = _subsets(sizes, draws, pool)
        everything = pool.exact()
        drawn = [subset for subset in subsets if not subset.whole]
        with bench.progress("recalibrating", sum(s.size for s in drawn), "samples") as advance:
            found = []
            for subset in drawn:
                found.append(_of_subset(pool, subset))
                advance(subset.size)
        tried = try_statistics(
            bench, held_out, [everything, *found], pool.hashes, "trying them on held-out data"
        )
    exact = tried.outcomes[0]
    by_size = [_of_size(size, subsets, tried) for size in sizes]
    enough = enough_samples(by_size, bench.seed)
    sweep = Sweep(
        "samples",
        **bench.header(),
        data=(SweepData("held-out", tried.info, scores_of(tried.estimates), scores_of(exact)),),
        points=tuple(_point(one, tried, exact, bench.seed) for one in by_size),
        conclusions=(enough,) if enough is not None else (),
        layers=tried.layers,
        calibration=pool.info,
        notes=(*pool.plan.notes, *tried.notes, *_notes(by_size, pool.samples)),
    )
    return replace(sweep, findings=conclude([sweep], bench.policy))


@dataclass(frozen=True)
class _Subset:
    """One draw of `size` samples, by their numbers in reading order; `whole`: all there are."""

    size: int
    chosen: tuple[int, ...]
    whole: bool


def _sizes(wanted: Sequence[float] | None, pool: CalibrationPool) -> tuple[int, ...]:
    if wanted is None:
        return tuple(map(int, doubling(pool.samples)))
    beyond = [int(value) for value in wanted if value > pool.samples]
    if beyond:
        raise InputError(
            f"{beyond[0]:,} samples: there are {pool.samples:,} to draw from "
            f"({pool.source.name}); give smaller numbers, or more data (--samples all)"
        )
    return tuple(map(int, wanted))


def _subsets(sizes: Sequence[int], draws: int, pool: CalibrationPool) -> list[_Subset]:
    """The subsets of a draw are nested: what differs between sizes is the size."""
    generator = random.Random(pool.bench.seed)
    orders = [generator.sample(range(pool.samples), pool.samples) for _ in range(draws)]
    made = []
    for size in sizes:
        whole = size == pool.samples
        made += [_Subset(size, tuple(o[:size]), whole) for o in orders[: 1 if whole else draws]]
    return made


def _of_subset(pool: CalibrationPool, subset: _Subset) -> NewStatistics:
    size = max(batch.size for batch in pool.batches)
    return pool.exact(regrouped(pool.batches, subset.chosen, size))


def _of_size(size: int, subsets: Sequence[_Subset], tried: Tried) -> OfSize:
    """The draws of this size; what was tried first are the statistics of all samples."""
    places = [i + 1 for i, subset in enumerate(subsets) if subset.size == size]
    whole = subsets[-1].whole and size == subsets[-1].size
    if whole:
        places = [0]
    return OfSize(
        size,
        [tried.outcomes[i] for i in places],
        [tried.residuals[i] for i in places],
        whole,
    )


def _point(one: OfSize, tried: Tried, exact: Outcomes, seed: int) -> SweepPoint:
    labelled = ~np.isnan(tried.estimates.correct)
    right, losses = one.stacked("correct", labelled), one.stacked("loss", labelled)
    change: dict[str, Change] = {}
    for name, other in (("change", tried.estimates), ("from_exact", exact)):
        if not labelled.any() or one.outcomes == [other]:
            continue  # the same statistics: nothing to compare
        compared = accuracy_change_over_draws(other.correct[labelled][None], right)
        loss = mean_change_over_draws(other.loss[labelled][None], losses, seed)
        change[f"accuracy_{name}"] = Change(*compared)
        if loss is not None:
            change[f"loss_{name}"] = Change(*loss)
    return SweepPoint(
        value=one.size,
        role="held-out",
        scores=_scores(one.outcomes),
        shift=residual_over_draws(one.residuals),
        by_layer=tuple(_of_layer(one.residuals, name) for name in tried.layers),
        draws=len(one.outcomes),
        **change,
    )


def _scores(outcomes: Sequence[Outcomes]) -> Scores:
    """Means over draws; limits over draws, None where there is one."""
    first = scores_of(outcomes[0])
    known = ~np.isnan(outcomes[0].correct)
    classes = ~np.isnan(outcomes[0].agree)

    def mean(name: str, chosen: Array) -> Figure | None:
        if not chosen.any():
            return None
        values = np.array([getattr(one, name)[chosen].mean() for one in outcomes])
        return Figure(*over_draws(values)) if np.isfinite(values).all() else None

    return replace(
        first,
        accuracy=_clipped(mean("correct", known)),
        loss=mean("loss", known),
        agreement=_clipped(mean("agree", classes)),
        kl=mean("kl", classes),
        relative_rms=_mean_rms(outcomes),
    )


def _clipped(figure: Figure | None) -> Figure | None:
    """A share lies between 0 and 1, and so do its limits."""
    if figure is None or figure.low is None or figure.high is None:
        return figure
    return Figure(figure.value, max(0.0, figure.low), min(1.0, figure.high))


def _mean_rms(outcomes: Sequence[Outcomes]) -> float | None:
    values = [one.relative_rms for one in outcomes if one.relative_rms is not None]
    return float(np.mean(values)) if len(values) == len(outcomes) else None


def residual_over_draws(residuals: Sequence[Residual]) -> Figure | None:
    """The mean over draws of the layers' root mean square, with its interval."""
    values = [value for one in residuals if (value := one.over_layers) is not None]
    if not values:
        return None
    mean, low, high = over_draws(np.array(values))
    return Figure(mean, None if low is None else max(0.0, low), high)


def _of_layer(residuals: Sequence[Residual], name: str) -> float | None:
    values = [one.by_layer[name] for one in residuals if name in one.by_layer]
    return float(np.sqrt(np.mean(np.square(values)))) if values else None


def _notes(by_size: Sequence[OfSize], samples: int) -> list[str]:
    overlapping = [one.size for one in by_size if len(one.outcomes) > 1 and 2 * one.size > samples]
    if not overlapping:
        return []
    return [
        f"subsets of {', '.join(map(str, overlapping))} of {samples:,} samples overlap: their "
        "draws differ less than those of fresh data would"
    ]
