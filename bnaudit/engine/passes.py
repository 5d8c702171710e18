"""One pass over the data: the deployed condition measured, mini-batch statistics beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from bnaudit.engine.batches import Batch, labels_of, slice_batch
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.collect import Collector
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.minibatch import MiniBatchStatistics
from bnaudit.engine.outputs import Compare, OutputComparison, Task
from bnaudit.engine.state import intercepted
from bnaudit.errors import ModelError
from bnaudit.results import NetworkAudit

Progress = Callable[[int], None]

NO_MINI_BATCHES = sys.maxsize
"""A mini-batch size that no batch holds: nothing is compared, only the deployed condition runs."""


@dataclass(frozen=True)
class Measurement:
    """What one pass saw: a record of each layer that was called, and the network's figures."""

    records: dict[str, LayerRecord]
    network: NetworkAudit
    samples: int
    labelled: bool
    mini_batch_size: int | None
    layers: list[BNLayer] = field(default_factory=list)


def measure_pass(
    model: nn.Module,
    layers: list[BNLayer],
    batches: Iterable[Batch],
    groups: int,
    conditions: Conditions,
    *,
    mini_batch_size: int | None,
    task: Task = "auto",
    compare: Compare | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure `layers` over `batches`; the model is bit for bit as before afterwards.

    `mini_batch_size` None takes the size of the first batch, on several ranks that of the first
    rank that has one. What comes back is what all ranks saw. Raises `ModelError` where the model
    cannot take the data, `NonFiniteError` where an activation is not finite.
    """
    with conditions.entered(model), conditions.ranks.as_one():
        run = _Pass(model, layers, groups, conditions, mini_batch_size, task, compare)
        for batch in run.with_a_size(batches):
            run.step(batch)
            if progress is not None:
                progress(batch.size)
        return run.result()


class _Pass:
    """The loop's state: what has been collected so far."""

    def __init__(
        self,
        model: nn.Module,
        layers: list[BNLayer],
        groups: int,
        conditions: Conditions,
        mini_batch_size: int | None,
        task: Task,
        compare: Compare | None,
    ) -> None:
        self._model, self._conditions = model, conditions
        self._layers = [layer for layer in layers if layer.role == "estimated"]
        self._groups, self._mini_batch_size = groups, mini_batch_size
        self._task, self._compare = task, compare
        self._mini_batch = MiniBatchStatistics()
        self._samples = 0
        self._labelled = False

    def with_a_size(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, once it is known how large mini-batches are."""
        iterator = iter(batches)
        first = next(iterator, None)
        if self._mini_batch_size is None:
            sizes = self._conditions.ranks.gather(first.size if first is not None else None)
            self._mini_batch_size = next((size for size in sizes if size is not None), None)
        self._collector = Collector(self._groups, self._mini_batch_size)
        self._comparison = OutputComparison(self._task, self._mini_batch_size, self._compare)
        if first is not None:
            yield first
            yield from iterator

    def step(self, batch: Batch) -> None:
        """One batch under both conditions."""
        conditions = self._conditions
        data = conditions.moved(batch)
        labels = labels_of(data)
        self._labelled |= labels is not None
        self._collector.start(batch)
        with intercepted(self._layers, self._collector):
            output = conditions.run(self._model, data, batch)
        self._collector.end()
        self._comparison.deployed(output, labels, batch.size, batch.index)
        self._compare_mini_batches(data, labels, output, batch)
        self._samples += batch.size

    def _compare_mini_batches(
        self, data: Any, labels: Tensor | None, output: Any, batch: Batch
    ) -> None:
        size, conditions = self._mini_batch_size, self._conditions
        assert size is not None
        adaptive = [layer for layer in self._layers if layer.verified and not layer.frozen]
        if not adaptive:
            return
        for start in range(0, batch.size - size + 1, size):
            cut = (start, start + size, batch.size)
            with intercepted(adaptive, self._mini_batch):
                other = conditions.run(self._model, slice_batch(data, *cut), batch)
            part = labels[start : start + size] if labels is not None else None
            deployed = slice_batch(output, *cut)
            self._comparison.pair(deployed, other, part, size, batch.index)

    def result(self) -> Measurement:
        """Settle everything that is still on its way, and what all ranks saw."""
        ranks = self._conditions.ranks
        seen = ranks.gather((self._samples, self._labelled, self._mini_batch.kept))
        samples = sum(one[0] for one in seen)
        if not samples:
            raise ModelError("the data gave no batch: nothing to measure on")
        self._collector.finish(self._layers, ranks)
        self._comparison.together(ranks)
        kept = sorted({name for one in seen for name in one[2]})
        return Measurement(
            records=self._collector.records,
            network=self._comparison.result(tuple(kept)),
            samples=samples,
            labelled=any(one[1] for one in seen),
            mini_batch_size=self._mini_batch_size,
            layers=self._layers,
        )
