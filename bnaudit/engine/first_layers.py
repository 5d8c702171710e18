"""The deployed condition as far as the first BatchNorm layers, and no further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnaudit.engine.batches import Batch
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.collect import Collector
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Stopped
from bnaudit.engine.ranks import ALONE
from bnaudit.engine.state import attributes, intercepted
from bnaudit.stats.moments import Moments, leave_one_out, merge, pool
from bnaudit.stats.shift import gamma_weighted_mean, squared_shift

FIRST = 3
"""So many layers are looked at: close enough to the input to tell what it is, and enough of them
that a wrong estimate of one layer is not taken for a fault of the data."""

Change = Callable[[Any], Any]
"""From a batch's data to other data in the same form."""


@dataclass(frozen=True)
class FirstShift:
    """The squared output shift at the first layers, and with each jackknife group left out.

    `layers`: names, in the order of their calls; `by_layer` (L,), each layer's squared output
    shift; `squared` their mean; `left_out` (k,): the same mean without each group of `counts` (k,)
    elements.
    """

    layers: tuple[str, ...]
    by_layer: tuple[float, ...]
    squared: float
    left_out: NDArray[np.float64]
    counts: Tensor


def first_shift(
    subject: Subject, batches: Sequence[Batch], change: Change | None = None
) -> FirstShift | None:
    """Run every batch, with `change` made to its data, as far as the first layers.

    Inside `conditions.entered(model)`. A layer without any γ that is not zero does not count. None
    where no layer is left. Raises what a forward raises: `ModelError`, `NonFiniteError`.
    """
    conditions = subject.conditions
    audited = [layer for layer in subject.layers if layer.role == "estimated"]
    collector = Collector(1 + max(int(batch.groups.max()) for batch in batches), None)
    for batch in batches:
        data = conditions.moved(batch)
        collector.start(batch)
        stop = _StopAfter(collector, FIRST)
        with attributes(subject.model), intercepted(audited, stop), suppress(Stopped):
            conditions.run(subject.model, data if change is None else change(data), batch)
        collector.end()
    collector.finish(audited, ALONE)
    return _summed(sorted(collector.records.values(), key=lambda record: record.order))


class _StopAfter:
    """Handler: measures every input, and ends the forward at the `layers`-th layer."""

    def __init__(self, collector: Collector, layers: int) -> None:
        self._collector, self._layers = collector, layers
        self._met: set[str] = set()

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        output = self._collector(layer, forward, x)
        if layer.verified:
            self._met.add(layer.name)
        if len(self._met) == self._layers:
            raise Stopped
        return output


def _summed(records: Sequence[LayerRecord]) -> FirstShift | None:
    names, whole, left_out = [], [], []
    counts: Tensor | None = None
    for record in records:
        if not record.layer.verified or not record.sites:
            continue
        groups = reduce(merge, [site.groups for site in record.sites])
        groups = groups.select(groups.count > 0)
        if len(groups.count) < 2 or (counts is not None and len(counts) != len(groups.count)):
            continue
        squared = _squared(record, pool(groups))
        if not bool(squared.isfinite().all()):
            continue
        counts = groups.count if counts is None else counts
        names.append(record.layer.name)
        whole.append(float(squared[0]))
        left_out.append(_squared(record, leave_one_out(groups)))
    if counts is None:
        return None
    return FirstShift(
        layers=tuple(names),
        by_layer=tuple(whole),
        squared=sum(whole) / len(whole),
        left_out=torch.stack(left_out).mean(0).numpy(),
        counts=counts,
    )


def _squared(record: LayerRecord, moments: Moments) -> Tensor:
    """The squared output shift of each part, (P,)."""
    eps = record.layer.eps or 0.0
    shift = squared_shift(moments.mean, moments.var, *record.estimated, eps)
    return gamma_weighted_mean(shift.total, record.layer.gamma())
