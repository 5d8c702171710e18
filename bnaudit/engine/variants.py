"""The same samples under several conditions, in one pass over the data.

A batch is read and moved once; every condition costs one more forward, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnaudit.engine.batches import Batch, labels_of, slice_batch
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.collect import Collector
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.outputs import OutputComparison, Task
from bnaudit.engine.population import Statistics
from bnaudit.engine.ranks import ALONE
from bnaudit.engine.segments import GhostBatches, WeighedExamples
from bnaudit.engine.state import Applied, intercepted
from bnaudit.errors import InputError
from bnaudit.stats.outputs import (
    per_sample_kl,
    per_sample_loss,
    same_top_one,
    top_one_right,
)

Array = NDArray[np.float64]


class Watcher(Protocol):
    """A handler for `intercepted` that is told how many samples the next forward has."""

    def start(self, samples: int) -> None:
        """The next forward has so many samples."""

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Stand in for the layer's forward."""


@dataclass(frozen=True, eq=False)
class Variant:
    """One condition: statistics in place of the layers' own, and a handler on `layers`.

    `multiple`: only so many samples of a batch take part that this divides them. `observed`: the
    deployed inputs of the audited layers are measured, by jackknife group; such a variant has no
    handler.
    """

    statistics: Mapping[BNLayer, Statistics] = field(default_factory=dict)
    handler: Watcher | None = None
    layers: Sequence[BNLayer] = ()
    multiple: int = 1
    observed: bool = False


ESTIMATES = Variant()
"""The layers' own statistics: the deployed condition."""


def ghost_batches(subject: Subject, size: int) -> Variant:
    """Mini-batch statistics at this size in every layer that would use them in training."""
    return Variant(handler=GhostBatches(size), layers=adaptive(subject.layers), multiple=size)


def weighed_examples(
    subject: Subject, alpha: float, statistics: Mapping[BNLayer, Statistics] | None = None
) -> Variant:
    """Inference example weighing at `alpha`, over the layers' own statistics or others."""
    handler = WeighedExamples(alpha)
    return Variant(statistics or {}, handler, adaptive(subject.layers))


def adaptive(layers: Iterable[BNLayer]) -> list[BNLayer]:
    """The layers that normalise by the mini-batch in training. Known once a forward has run."""
    return [x for x in layers if x.role == "estimated" and x.verified and not x.frozen]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What came of each sample under one condition, (N,) each, in reading order.

    NaN where the sample took no part, has no label, or its output is no class scores. `correct`
    and `agree` are 0 or 1 (the latter: the same top-1 class as under the first condition), `loss`
    and `kl` (from the first condition) in nats. `took_part`: bool. `relative_rms`: for outputs
    that are no class scores. `records`: what the layers saw, where that was asked for.
    """

    took_part: NDArray[np.bool_]
    correct: Array
    loss: Array
    agree: Array
    kl: Array
    relative_rms: float | None = None
    records: dict[str, LayerRecord] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether any sample has a label, and class scores."""
        return not bool(np.isnan(self.correct).all())


def variants_pass(
    subject: Subject,
    batches: Iterable[Batch],
    variants: Sequence[Variant],
    *,
    groups: int = 1,
    task: Task = "auto",
    progress: Callable[[int], None] = lambda samples: None,
) -> list[Outcomes]:
    """Run every batch under each of the variants; the first is what the others compare with.

    `groups` is the number of jackknife groups that the samples are dealt to, for variants that are
    observed; `progress` is called with the number of samples of each batch. Inside
    `conditions.entered(model)`. Raises `InputError` where the data give no batch.
    """
    conditions = subject.conditions
    runs = [_Run(subject, variant, groups, task) for variant in variants]
    samples = 0
    for batch in batches:
        data = conditions.moved(batch)
        labels = labels_of(data)
        first: Any = None
        for number, run in enumerate(runs):
            output = run.forward(batch, data)
            if number == 0:
                first = output
            run.compare(first, output, labels, batch.size)
        samples += batch.size
        progress(batch.size)
    if not samples:
        raise InputError("the data gave no batch: nothing to try the values on")
    return [run.result(samples) for run in runs]


class _Run:
    """One variant's account over the pass."""

    def __init__(self, subject: Subject, variant: Variant, groups: int, task: Task) -> None:
        self._subject, self._variant = subject, variant
        self._collector = Collector(groups, None) if variant.observed else None
        self._comparison = OutputComparison(task, None)
        self._kept: dict[str, list[Tensor]] = {}
        self._took_part: list[NDArray[np.bool_]] = []

    def forward(self, batch: Batch, data: Any) -> Any:
        """The output of the samples that take part; None where they are none."""
        taken = self._taken(batch.size)
        if not taken:
            return None
        part = slice_batch(data, 0, taken, batch.size)
        with self._entered(batch, taken):
            output = self._subject.conditions.run(self._subject.model, part, batch)
        if self._collector is not None:
            self._collector.end()
        return output

    @contextmanager
    def _entered(self, batch: Batch, taken: int) -> Iterator[None]:
        variant = self._variant
        with ExitStack() as stack:
            stack.enter_context(Applied(variant.statistics))
            if self._collector is not None:
                self._collector.start(batch)
                audited = [x for x in self._subject.layers if x.role == "estimated"]
                stack.enter_context(intercepted(audited, self._collector))
            elif variant.handler is not None:
                variant.handler.start(taken)
                stack.enter_context(intercepted(variant.layers, variant.handler))
            yield

    def _taken(self, size: int) -> int:
        return size - size % self._variant.multiple

    def compare(self, first: Any, output: Any, labels: Tensor | None, size: int) -> None:
        """Note what came of the samples."""
        taken = self._taken(size)
        self._took_part.append(np.arange(size) < taken)
        if taken:
            reference = slice_batch(first, 0, taken, size)
            known = labels[:taken] if labels is not None else None
            self._comparison.pair(reference, output, known, taken)
            a, b = self._comparison.logits(reference), self._comparison.logits(output)
        if not taken or a is None or b is None or len(b) != taken:
            for name in ("correct", "loss", "agree", "kl"):
                self._note(name, torch.full((size,), torch.nan), size)
            return
        self._note("agree", same_top_one(a, b), size)
        self._note("kl", per_sample_kl(a, b), size)
        if known is None:
            for name in ("correct", "loss"):
                self._note(name, torch.full((size,), torch.nan), size)
            return
        known = known.to(b.device).clamp(0, b.shape[1] - 1)  # the comparison checks the range
        self._note("correct", top_one_right(b, known), size)
        self._note("loss", per_sample_loss(b, known), size)

    def _note(self, name: str, values: Tensor, size: int) -> None:
        wide = values.float()
        missing = torch.full((size - len(wide),), torch.nan, device=wide.device)
        self._kept.setdefault(name, []).append(torch.cat([wide, missing]))

    def result(self, samples: int) -> Outcomes:
        """As arrays. Waits for the device."""
        # Samples that took no part have no figures of the device's.
        kept = {
            name: torch.cat([part.cpu() for part in parts]).double().numpy()
            for name, parts in self._kept.items()
        }
        records: dict[str, LayerRecord] = {}
        if self._collector is not None:
            self._collector.finish(self._subject.layers, ALONE)
            records = self._collector.records
        return Outcomes(
            np.concatenate(self._took_part),
            kept["correct"],
            kept["loss"],
            kept["agree"],
            kept["kl"],
            self._comparison.result(()).relative_rms,
            records,
        )
