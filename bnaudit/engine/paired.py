"""The same samples under the estimates and under new statistics, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnaudit.engine.batches import Batch, labels_of
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.collect import Collector
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.outputs import OutputComparison, Task
from bnaudit.engine.population import Statistics
from bnaudit.engine.ranks import Ranks
from bnaudit.engine.state import Applied, intercepted
from bnaudit.errors import NonFiniteError
from bnaudit.stats.outputs import (
    per_sample_entropy,
    per_sample_loss,
    same_top_one,
    top_one_right,
)

Array = np.ndarray


@dataclass(frozen=True)
class Outputs:
    """Figures of each sample before and after, (N,) each; None where they do not exist.

    `correct_*` are 0 or 1, losses and entropies in nats, `agree` whether the top-1 class is the
    same. The first two need labels: they cover the labelled samples.
    """

    correct: tuple[Array, Array] | None
    loss: tuple[Array, Array] | None
    entropy: tuple[Array, Array] | None
    agree: Array | None


@dataclass(frozen=True)
class Paired:
    """What one pass under both conditions saw: records by layer name, and the outputs.

    `broken`: what is said of activations that are not finite under the layers' own statistics;
    `before` is empty then.
    """

    before: dict[str, LayerRecord]
    after: dict[str, LayerRecord]
    outputs: Outputs
    comparison: OutputComparison
    samples: int
    broken: str | None = None


def paired_pass(
    subject: Subject,
    batches: Iterable[Batch],
    groups: int,
    statistics: Mapping[BNLayer, Statistics],
    *,
    task: Task = "auto",
    progress: Callable[[int], None] = lambda samples: None,
) -> Paired:
    """Run every batch with the layers' own statistics and with `statistics` in their place.

    Of what all ranks saw. Inside `conditions.entered(model)`.
    """
    model, conditions = subject.model, subject.conditions
    audited = [layer for layer in subject.layers if layer.role == "estimated"]
    before, after = Collector(groups, None), Collector(groups, None)
    comparison = OutputComparison(task, None)
    outputs = _PerSample()
    statistics = {layer: _like(layer, *pair) for layer, pair in statistics.items()}
    samples, broken = 0, None
    for batch in batches:
        data = conditions.moved(batch)
        with _collecting(before, batch, audited):
            old = conditions.run(model, data, batch)
        with Applied(statistics), _collecting(after, batch, audited):
            new = conditions.run(model, data, batch)
        after.end()
        if broken is None:
            broken = _not_finite(before.end)
        labels = labels_of(data)
        comparison.pair(old, new, labels, batch.size, batch.index)
        logits = comparison.logits(old), comparison.logits(new)
        if logits[0] is not None and logits[1] is not None:
            outputs.add(batch.index, logits[0], logits[1], labels)
        samples += batch.size
        progress(batch.size)
    ranks = conditions.ranks
    after.finish(subject.layers, ranks)
    if broken is None:
        broken = _not_finite(before.settle)
    faults = ranks.gather((samples, broken))
    broken = next((fault for _, fault in faults if fault is not None), None)
    if broken is None:
        before.finish(subject.layers, ranks)
    comparison.together(ranks)
    return Paired(
        before.records if broken is None else {},
        after.records,
        outputs.result(ranks),
        comparison,
        sum(n for n, _ in faults),
        broken,
    )


def _like(layer: BNLayer, mean: Tensor, var: Tensor) -> Statistics:
    """Where the layer's own are, in their dtype: moved once, not for every batch."""
    own_mean, own_var = layer.estimated
    moved = mean.to(own_mean.dtype).to(own_mean.device)
    return moved, var.to(own_var.dtype).to(own_var.device)


def _not_finite(action: Callable[[], None]) -> str | None:
    """What `action` says of activations that are not finite; None where there are none."""
    try:
        action()
    except NonFiniteError as error:
        return str(error)
    return None


def _collecting(
    collector: Collector, batch: Batch, layers: list[BNLayer]
) -> AbstractContextManager[None]:
    collector.start(batch)
    return intercepted(layers, collector)


class _PerSample:
    """Keeps a few numbers of each sample, on the device until the end."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, Tensor]]] = {}

    def add(self, batch: int, old: Tensor, new: Tensor, labels: Tensor | None) -> None:
        """The class scores (N, K) of the batch with this number under both conditions."""
        self._batch = batch
        self._keep("agree", same_top_one(old, new))
        for when, logits in (("before", old), ("after", new)):
            self._keep(f"entropy_{when}", per_sample_entropy(logits))
            if labels is not None:
                known = labels.to(logits.device).clamp(0, logits.shape[1] - 1)
                self._keep(f"correct_{when}", top_one_right(logits, known))
                self._keep(f"loss_{when}", per_sample_loss(logits, known))

    def _keep(self, name: str, values: Tensor) -> None:
        self._kept.setdefault(name, []).append((self._batch, values.float()))

    def result(self, ranks: Ranks) -> Outputs:
        """As arrays, of all ranks, in reading order. Waits for the device."""
        own = {
            k: [(batch, part.cpu().double()) for batch, part in v] for k, v in self._kept.items()
        }
        shares = ranks.gather(own)
        kept = {}
        for name in dict.fromkeys(name for share in shares for name in share):
            parts = [part for share in shares for part in share.get(name, [])]
            kept[name] = torch.cat([p for _, p in sorted(parts, key=lambda x: x[0])]).numpy()

        def both(name: str) -> tuple[Array, Array] | None:
            if f"{name}_before" not in kept:
                return None
            return kept[f"{name}_before"], kept[f"{name}_after"]

        return Outputs(both("correct"), both("loss"), both("entropy"), kept.get("agree"))
