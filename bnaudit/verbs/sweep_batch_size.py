"""`sweep batch-size`: a network that normalises by mini-batches of several sizes.

Wu & Johnson 2021 (arXiv:2105.07576) compare train-mode and inference over the normalisation batch
size in section 3 and 4; Summers & Dinneen 2020 (arXiv:1906.03548) look at the same gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
from torch import nn

from bnaudit.engine.discrepancies import DiscrepancyBySize
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.engine.segments import GhostBatches
from bnaudit.engine.variants import (
    Outcomes,
    Variant,
    adaptive,
    ghost_batches,
    variants_pass,
)
from bnaudit.errors import InputError
from bnaudit.findings.conclude import conclude
from bnaudit.results.scores import Figure
from bnaudit.results.sweep import Role, Sweep, SweepData, SweepPoint
from bnaudit.verbs.batch_size_conclusions import larger_batch, trained_at
from bnaudit.verbs.exact_statistics import exact_statistics
from bnaudit.verbs.samples import MapReader
from bnaudit.verbs.scores import accuracy_between, loss_between, scores_of
from bnaudit.verbs.sources import Source, data_info
from bnaudit.verbs.sweep_values import SIZES, checked_sizes
from bnaudit.verbs.workbench import Data, RunOptions, Workbench, workbench


def sweep_batch_size(
    model: nn.Module,
    data: Data,
    *,
    values: Sequence[int] | None = None,
    train_data: Data | None = None,
    train_batch_size: int | None = None,
    **options: Unpack[RunOptions],
) -> Sweep:
    """Accuracy, loss, agreement and layer discrepancy over the normalisation batch size.

    The model is in `eval()`, and only its BatchNorm layers normalise by the moments of B
    consecutive samples, for each B of `values` (default 2 to 128, as far as the data allow); the
    samples that fill no mini-batch are left out. Beside them the estimated statistics, and exact
    ones (of `train_data` where given, otherwise of `data`). The model is left as it was.

    Args:
        model: as for `bnaudit.measure`.
        data: held-out data; with labels they give accuracies and losses.
        values: mini-batch sizes, 2 or more.
        train_data: the data that the model was trained on: they tell best at which size.
        train_batch_size: the size it was trained with, where it is known; it is tried as well.
        options: see `RunOptions`.

    Returns:
        The Sweep: `sweep.points`, `sweep.conclusion("trained-at")`, `sweep.to_frame()`.

    Raises:
        InputError: sizes that the data cannot fill, among others as `bnaudit.measure`.
    """
    bench = workbench(model, data, train_data=train_data, **options)
    return sweep_batch_size_with(bench, values, train_batch_size)


def sweep_batch_size_with(
    bench: Workbench, values: Sequence[float] | None, train_batch_size: int | None = None
) -> Sweep:
    """The same for a workbench."""
    sizes = checked_sizes(SIZES if values is None else values)
    if train_batch_size is not None:
        sizes = tuple(sorted({*sizes, *checked_sizes([train_batch_size])}))
    sources: list[tuple[Role, Source]] = [("held-out", bench.data)]
    if bench.train is not None:
        sources.insert(0, ("train", bench.train))
    given = values is not None
    held = [(role, *_with_room(source, sizes, given=given)) for role, source in sources]
    subject, points, told, notes = bench.subject, [], [], list[str]()
    seen: dict[Role, dict[int, Outcomes]] = {}
    order: list[str] = []
    with subject.conditions.entered(subject.model):
        calibration = held[0][1]
        exact = exact_statistics(bench, calibration, say=bench.say)
        notes.extend(exact.notes)
        if bench.train is None:
            notes.append("the exact statistics are those of the very samples they are tried on")
        for role, source, usable in held:
            run = _Pass(bench, source, usable, exact.statistics)
            points.extend(run.points(role))
            told.append(run.data(role))
            notes.extend(run.notes)
            seen[role] = run.by_size
            order = order or run.layers
    trained = trained_at(seen) if train_batch_size is None else None
    larger = larger_batch(seen, bench.seed, trained, train_batch_size)
    sweep = Sweep(
        "batch-size",
        **bench.header(),
        data=tuple(told),
        points=tuple(points),
        conclusions=tuple(one for one in (trained, larger) if one is not None),
        layers=tuple(order),
        calibration=exact.info,
        current=train_batch_size,
        notes=tuple(dict.fromkeys(notes)),
    )
    return replace(sweep, findings=conclude([sweep], bench.policy))


def _with_room(
    source: Source, sizes: tuple[int, ...], *, given: bool
) -> tuple[Source, tuple[int, ...]]:
    """The source in batches that hold the largest mini-batch, and the sizes that it can fill."""
    reader = source.reader
    total = reader.total
    most = total if isinstance(reader, MapReader) else reader.pass_batch_size
    usable = tuple(size for size in sizes if most is None or size <= most)
    if given and usable != sizes:
        what = "samples" if isinstance(reader, MapReader) else "samples a batch"
        raise InputError(
            f"mini-batches of {max(sizes)}: there are {most} {what} ({source.name}); give smaller "
            "ones, or more data"
        )
    if not usable:
        raise InputError(f"{source.name}: too few samples for a mini-batch; give more")
    if not isinstance(reader, MapReader):
        return source, usable
    largest = max(usable)
    size = max(largest, reader.batch_size - reader.batch_size % largest)
    wide = replace(reader, batch_size=size, samples=reader.asked, notes=[])
    return replace(source, reader=wide), usable


class _Pass:
    """One set of data under the estimates, exact statistics and every mini-batch size."""

    def __init__(
        self,
        bench: Workbench,
        source: Source,
        sizes: tuple[int, ...],
        exact: dict[BNLayer, Statistics],
    ) -> None:
        subject, reader = bench.subject, source.reader
        layers = adaptive(subject.layers)
        self._sizes, self._source, self._seed = sizes, source, bench.seed
        self._discrepancy = DiscrepancyBySize(sizes)
        ghosts = [ghost_batches(subject, size) for size in sizes]
        deployed = Variant(handler=self._discrepancy, layers=layers)
        with bench.progress(
            f"mini-batches of {sizes[0]} to {sizes[-1]}", reader.total, "samples"
        ) as advance:
            self._estimates, self._exact, *rest = variants_pass(
                subject,
                reader,
                [deployed, Variant(exact), *ghosts],
                task=bench.task,
                progress=advance,
            )
        self.by_size = {
            size: outcomes
            for size, outcomes in zip(sizes, rest, strict=True)
            if outcomes.took_part.any()
        }
        self.layers = self._discrepancy.order
        self.notes = _notes(sizes, self.by_size, ghosts, source)

    def data(self, role: Role) -> SweepData:
        """What was read, and the network without mini-batches."""
        samples = len(self._estimates.took_part)
        labelled = self._estimates.labelled
        source = self._source
        info = data_info(source.reader, source.name, samples, source.transform, labelled=labelled)
        return SweepData(role, info, scores_of(self._estimates), scores_of(self._exact))

    def points(self, role: Role) -> list[SweepPoint]:
        """One for each size."""
        return [self._point(role, size, found) for size, found in self.by_size.items()]

    def _point(self, role: Role, size: int, found: Outcomes) -> SweepPoint:
        squared = [self._discrepancy.squared(name, size) for name in self.layers]
        known = [value for value in squared if value is not None]
        return SweepPoint(
            value=size,
            role=role,
            scores=scores_of(found),
            accuracy_change=accuracy_between(self._estimates, found),
            loss_change=loss_between(self._estimates, found, self._seed),
            accuracy_from_exact=accuracy_between(self._exact, found),
            loss_from_exact=loss_between(self._exact, found, self._seed),
            shift=Figure(float(np.mean(known)) ** 0.5) if known else None,
            by_layer=tuple(v**0.5 if v is not None else None for v in squared),
        )


def _notes(
    sizes: tuple[int, ...],
    by_size: dict[int, Outcomes],
    ghosts: list[Variant],
    source: Source,
) -> list[str]:
    notes = []
    empty = [size for size in sizes if size not in by_size]
    if empty:
        notes.append(
            f"{source.name}: its batches hold no mini-batch of {', '.join(map(str, empty))}"
        )
    kept = sorted(
        {n for g in ghosts if isinstance(g.handler, GhostBatches) for n in g.handler.kept}
    )
    if kept:
        notes.append(
            f"single values a channel, so the estimates stay, at some sizes: {', '.join(kept)}"
        )
    return notes
