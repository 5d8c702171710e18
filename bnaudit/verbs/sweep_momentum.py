"""`sweep momentum`: the framework's moving average of statistics, with several momenta.

Wu & Johnson 2021 (arXiv:2105.07576), section 3: an average that moves slowly lags behind, one that
moves fast follows the last mini-batches; statistics of the whole population do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from torch import nn

from bnaudit.engine.train_mode import MovingAverages
from bnaudit.errors import InputError
from bnaudit.findings.conclude import conclude
from bnaudit.results.sweep import Conclusion, Sweep, SweepData
from bnaudit.verbs.best_value import Best, best_value, surely_worse
from bnaudit.verbs.calibration_pool import CalibrationPool, calibration_pool
from bnaudit.verbs.held_out import NewStatistics, held_out_sources, try_statistics
from bnaudit.verbs.samples import MapReader, check_positive
from bnaudit.verbs.scores import loss_between, scores_of
from bnaudit.verbs.sources import Source
from bnaudit.verbs.sweep_values import MOMENTA, checked_values
from bnaudit.verbs.swept_point import swept_point
from bnaudit.verbs.workbench import Data, RunOptions, Workbench, workbench


def sweep_momentum(
    model: nn.Module,
    data: Data,
    *,
    values: Sequence[float] | None = None,
    train_batch_size: int | None = None,
    verify: Data | None = None,
    verify_split: float | None = None,
    verify_samples: int | None = None,
    **options: Unpack[RunOptions],
) -> Sweep:
    """Let the moving average run over `data` with each momentum, and try what comes of it.

    m ← (1 − momentum)·m + momentum·(moments of a mini-batch), from the checkpoint's statistics on,
    with the unbiased variance, as `torch.nn.BatchNorm2d` and `bnaudit.recalibrate(method="ema")`
    have it. One pass in mini-batches serves all momenta: in train mode nothing in a forward depends
    on the running statistics. The best momentum is chosen on one half of the labelled held-out
    samples, by the loss, and its gain over the layers' own momentum is told on the other half. The
    residual is the ESM of the layers on the held-out data. The model is left as it was.

    Args:
        model: as for `bnaudit.measure`.
        data: what the average runs over, best the data it was trained on.
        values: momenta, above 0 to 1; default 1, 0.3, 0.1, … 0.001 and the layers' own.
        train_batch_size: the size of the mini-batches; default: `batch_size`. A loader's batches
            are what they are, which is noted.
        verify: held-out data; without labels nothing is chosen.
        verify_split: instead, the share of `data` that is held out (default a half).
        verify_samples: at most so many held-out samples are read.
        options: see `RunOptions`.

    Returns:
        The Sweep: `sweep.points`, `sweep.conclusion("best")`, `sweep.current`: the layers' own
        momentum, None where they differ.

    Raises:
        InputError: momenta outside of 0 to 1, mini-batches of single values a channel, among
            others as `bnaudit.recalibrate`.

    Example:
        >>> sweep = bnaudit.sweep_momentum(model, train, verify=test)  # doctest: +SKIP
        >>> sweep.conclusion("best").candidates  # doctest: +SKIP
    """
    check_positive("train_batch_size", train_batch_size)
    bench = workbench(model, data, **options)
    sources = held_out_sources(bench, verify, verify_split, verify_samples, options)
    return sweep_momentum_with(bench, *sources, values, train_batch_size)


def sweep_momentum_with(
    bench: Workbench,
    calibration: Source,
    held_out: Source,
    values: Sequence[float] | None,
    train_batch_size: int | None = None,
) -> Sweep:
    """The same for a workbench, with data in two parts."""
    wanted = checked_values("momentum", MOMENTA if values is None else values)
    subject = bench.subject
    with subject.conditions.entered(subject.model):
        pool = calibration_pool(bench, _in_mini_batches(calibration, train_batch_size), bench.say)
        current = _current(pool)
        momenta = tuple(sorted({*wanted, current})) if current is not None else wanted
        with bench.progress("moving averages and exact statistics", 2, "passes") as advance:
            averages = pool.moving_averages(momenta)
            if not averages.updates:
                raise InputError(_never_moves(calibration))
            advance(1)
            found: list[NewStatistics] = [pool.exact(), *averages.by_momentum]
            advance(1)
        tried = try_statistics(bench, held_out, found, pool.hashes, "trying them on held-out data")
    exact, *outcomes = tried.outcomes
    by_momentum = dict(zip(momenta, outcomes, strict=True))
    reference = by_momentum[current] if current is not None else tried.estimates
    at_rest = {} if current is not None else {0.0: tried.estimates}
    best = best_value(reference, at_rest | by_momentum, bench.seed)
    updates = max(averages.updates.values())
    said: tuple[Conclusion, ...] = ()
    if best is not None:
        as_exact = [
            momentum
            for momentum, one in by_momentum.items()
            if not surely_worse(loss_between(exact, one, bench.seed))
        ]
        said = (_best(best, momenta, as_exact, current, updates),)
    sweep = Sweep(
        "momentum",
        **bench.header(),
        data=(SweepData("held-out", tried.info, scores_of(tried.estimates), scores_of(exact)),),
        points=tuple(
            swept_point(momentum, place + 1, tried, exact, bench.seed)
            for place, momentum in enumerate(momenta)
        ),
        conclusions=said,
        layers=tried.layers,
        calibration=pool.info,
        current=current,
        updates=updates,
        notes=(
            *pool.plan.notes,
            *tried.notes,
            *_own_batches(calibration, train_batch_size),
            *_moves(averages, pool),
            *_notes(current, labelled=tried.labelled),
        ),
    )
    return replace(sweep, findings=conclude([sweep], bench.policy))


def _in_mini_batches(source: Source, size: int | None) -> Source:
    """The same data in batches of this size. A stream's batches are what they are."""
    reader = source.reader
    if size is None or not isinstance(reader, MapReader):
        return source
    again = replace(reader, batch_size=size, samples=reader.asked, notes=[])
    return replace(source, reader=again)


def _current(pool: CalibrationPool) -> float | None:
    """The momentum that all layers have; None where they differ, or average cumulatively."""
    momenta = {layer.momentum for layer in pool.layers}
    only = momenta.pop() if len(momenta) == 1 else None
    return only if only is not None and 0 < only <= 1 else None


def _never_moves(source: Source) -> str:
    return (
        f"{source.name}: no mini-batch gives a layer two values a channel, so that the moving "
        "average never moves; give a larger --train-batch-size, or larger batches"
    )


def _own_batches(source: Source, size: int | None) -> list[str]:
    if size is None or isinstance(source.reader, MapReader):
        return []
    return [f"{source.name}: its batches are its own, mini-batches of {size:,} cannot be made"]


def _moves(averages: MovingAverages, pool: CalibrationPool) -> list[str]:
    """How often the average moves, and which layers' do so less often."""
    updates, largest = max(averages.updates.values()), max(batch.size for batch in pool.batches)
    each = "mini-batch" if updates == 1 else "mini-batches"
    notes = [f"{updates:,} {each} of {largest:,}: so often the average moves"]
    less = [layer.name for layer in pool.layers if averages.updates.get(layer, 0) < updates]
    if less:
        named = ", ".join(less[:3]) + (", …" if len(less) > 3 else "")
        notes.append(
            f"single values a channel, so the average moves less often in {len(less)} "
            f"{'layer' if len(less) == 1 else 'layers'}: {named}"
        )
    return notes


def _notes(current: float | None, *, labelled: bool) -> list[str]:
    notes = []
    if current is None:
        notes.append("the layers have no momentum in common: gains are over the estimates")
    if not labelled:
        notes.append("no labels: which momentum is best cannot be told")
    return notes


def _best(
    best: Best,
    momenta: Sequence[float],
    as_exact: Sequence[float],
    current: float | None,
    updates: int,
) -> Conclusion:
    """`as_exact`: the momenta that do as well as exact statistics."""
    sentence = f"{_meets(as_exact)} "
    if best.value == current:
        sentence += (
            f"On the half of the held-out data that chooses the loss is lowest at momentum "
            f"{current:g}, the layers' own: no other is shown to do better."
        )
    elif not best.value:
        sentence += (
            "None of these momenta has a lower loss than the estimates, on the half of the "
            "held-out data that chooses."
        )
    else:
        over = "the estimates" if current is None else f"the layers' own, {current:g}"
        sentence += (
            f"The loss is lowest at momentum {best.value:g}, chosen on one half of the held-out "
            f"data; {best.on_the_other_half(over)}"
        )
    if current is not None and (left := (1 - current) ** updates) >= 0.01:
        after = "this mini-batch" if updates == 1 else f"these {updates:,} mini-batches"
        sentence += f" After {after} {left:.0%} of the old statistics are left at {current:g}."
    return Conclusion(
        "best",
        sentence,
        best.value or None,
        tuple(value for value in best.candidates if value in momenta),
        best.accuracy,
        best.loss,
        significant=best.value != current and best.significant,
    )


def _meets(momenta: Sequence[float]) -> str:
    if not momenta:
        return "The moving average does not meet exact statistics at any of these momenta."
    listed = ", ".join(f"{momentum:g}" for momentum in sorted(momenta))
    return (
        f"The moving average does as well as exact statistics (the loss is not surely higher) at "
        f"{'momentum' if len(momenta) == 1 else 'momenta'} {listed}."
    )
