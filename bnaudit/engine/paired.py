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

    Inside `conditions.entered(model)`.
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
        comparison.pair(old, new, labels, batch.size)
        logits = comparison.logits(old), comparison.logits(new)
        if logits[0] is not None and logits[1] is not None:
            outputs.add(logits[0], logits[1], labels)
        samples += batch.size
        progress(batch.size)
    after.finish()
    if broken is None:
        broken = _not_finite(before.finish)
    seen = before.records if broken is None else {}
    return Paired(seen, after.records, outputs.result(), comparison, samples, broken)


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
        self._kept: dict[str, list[Tensor]] = {}

    def add(self, old: Tensor, new: Tensor, labels: Tensor | None) -> None:
        """The class scores (N, K) of one batch under both conditions."""
        self._keep("agree", same_top_one(old, new))
        for when, logits in (("before", old), ("after", new)):
            self._keep(f"entropy_{when}", per_sample_entropy(logits))
            if labels is not None:
                known = labels.to(logits.device).clamp(0, logits.shape[1] - 1)
                self._keep(f"correct_{when}", top_one_right(logits, known))
                self._keep(f"loss_{when}", per_sample_loss(logits, known))

    def _keep(self, name: str, values: Tensor) -> None:
        self._kept.setdefault(name, []).append(values.float())

    def result(self) -> Outputs:
        """As arrays. Waits for the device."""
        kept = {k: torch.cat(v).cpu().double().numpy() for k, v in self._kept.items()}

        def both(name: str) -> tuple[Array, Array] | None:
            if f"{name}_before" not in kept:
                return None
            return kept[f"{name}_before"], kept[f"{name}_after"]

        return Outputs(both("correct"), both("loss"), both("entropy"), kept.get("agree"))
