"""The deployed pass: every layer normalises by its own estimates, and its input is measured.

What a layer sees is reduced to the moments of short runs of samples on the device, and merged on
the CPU in float64 once a batch: on an accelerator the results of one batch travel while the next
one runs, so that nothing waits for a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.batches import Batch
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.probe import probe
from bnaudit.errors import NonFiniteError
from bnaudit.stats.kernels import RunMoments, Scratch, run_moments
from bnaudit.stats.moments import GroupedMoments, Moments, scatter
from bnaudit.stats.shift import squared_shift


@dataclass(frozen=True)
class Runs:
    """How the samples of a batch fall into consecutive runs of one group and one mini-batch.

    `bounds`: sample numbers within the batch, from 0 to its size; `group`, `mini_batch`: of each
    run; a mini-batch of −1 is the partial one at the end, which is left out.
    """

    bounds: tuple[int, ...]
    group: tuple[int, ...]
    mini_batch: tuple[int, ...]

    @classmethod
    def of(cls, batch: Batch, mini_batch_size: int | None) -> Runs:
        """Cut `batch` wherever the group or the mini-batch of size `mini_batch_size` changes."""
        groups = batch.groups.tolist()
        whole = batch.size // mini_batch_size if mini_batch_size else 0
        of_mini = [
            i // mini_batch_size if mini_batch_size and i // mini_batch_size < whole else -1
            for i in range(batch.size)
        ]
        keys = list(zip(groups, of_mini, strict=True))
        starts = [i for i in range(batch.size) if i == 0 or keys[i] != keys[i - 1]]
        return cls(
            (*starts, batch.size),
            tuple(groups[i] for i in starts),
            tuple(of_mini[i] for i in starts),
        )

    def rows(self, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The same cuts on an input of `rows` rows: (bounds, the runs that are not empty).

        A layer may see more rows than there are samples (frames, regions, nodes): rows are taken
        to belong to samples in order, in equal shares. Exact for N·T rows in sample-major order.
        """
        size = self.bounds[-1]
        scaled = [round(b * rows / size) for b in self.bounds]
        kept = [i for i in range(len(self.group)) if scaled[i + 1] > scaled[i]]
        return (0, *(scaled[i + 1] for i in kept)), tuple(kept)


@dataclass
class CallRecord:
    """What one call site of a layer saw, over all batches."""

    groups: GroupedMoments
    squared_discrepancy: Tensor
    mini_batches: int = 0


@dataclass
class LayerRecord:
    """What a layer saw: one `CallRecord` for each of its calls in a forward."""

    layer: BNLayer
    order: int
    estimated: tuple[Tensor, Tensor]
    calls: int = 0
    empty_calls: int = 0
    single_value: bool = False
    switched_to_training: bool = False
    sites: list[CallRecord] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    record: LayerRecord
    site: int
    runs: Runs
    kept: tuple[int, ...]
    batch: int
    moments: RunMoments


class Collector:
    """Handler for `intercepted`: measures every layer's input and then runs the layer as it is."""

    def __init__(self, groups: int, mini_batch_size: int | None) -> None:
        self.records: dict[str, LayerRecord] = {}
        self._groups = groups
        self._mini_batch_size = mini_batch_size
        self._scratch = Scratch()
        self._site: dict[str, int] = {}
        self._seen: list[_Seen] = []
        self._travelling: _Travelling | None = None
        self._batch: Batch | None = None
        self._runs: Runs | None = None

    def start(self, batch: Batch) -> None:
        """The forward of `batch` is about to run."""
        self._batch = batch
        self._runs = Runs.of(batch, self._mini_batch_size)
        self._site.clear()
        self._seen = []

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Measure `x` and return the layer's own output."""
        assert self._batch is not None
        assert self._runs is not None
        record = self._record(layer)
        record.calls += 1
        record.switched_to_training |= layer.module.training
        if x.numel() == 0:
            record.empty_calls += 1
            return forward(x)
        if not layer.verified and not _verify(layer, forward, x):
            return forward(x)
        site = self._site.get(layer.name, 0)
        self._site[layer.name] = site + 1
        values = (
            x.detach() if layer.channel_axis == 1 else x.detach().movedim(layer.channel_axis, 1)
        )
        bounds, kept = self._runs.rows(values.shape[0])
        moments = run_moments(values, bounds, self._scratch)
        self._seen.append(_Seen(record, site, self._runs, kept, self._batch.index, moments))
        return forward(x)

    def _record(self, layer: BNLayer) -> LayerRecord:
        record = self.records.get(layer.name)
        if record is None:
            mean, var = (t.detach().to("cpu", torch.float64) for t in layer.estimated)
            record = LayerRecord(layer, len(self.records), (mean, var))
            self.records[layer.name] = record
        return record

    def end(self) -> None:
        """The forward is done: send its moments on their way, and merge those of the last one."""
        sent = _Travelling(self._seen)
        self._seen = []
        if self._travelling is not None:
            self._merge(self._travelling)
        self._travelling = sent
        if not sent.asynchronous:
            self.finish()

    def finish(self) -> None:
        """Merge what is still travelling. Call after the last batch."""
        if self._travelling is not None:
            travelling, self._travelling = self._travelling, None
            self._merge(travelling)

    def _merge(self, travelling: _Travelling) -> None:
        for seen, mean, m2 in travelling.arrived():
            if not bool((mean.isfinite() & m2.isfinite()).all()):
                raise _non_finite(seen, mean)
            parts = Moments(_on_cpu(seen.moments.counts).double(), mean, m2)
            record = seen.record
            while len(record.sites) <= seen.site:
                channels = record.layer.channels
                zeros = torch.zeros(channels, dtype=torch.float64, device="cpu")
                record.sites.append(CallRecord(GroupedMoments(self._groups, channels), zeros))
            site = record.sites[seen.site]
            group = _on_cpu([seen.runs.group[i] for i in seen.kept])
            site.groups.add(parts, group)
            self._add_discrepancy(record, site, parts, [seen.runs.mini_batch[i] for i in seen.kept])

    def _add_discrepancy(
        self, record: LayerRecord, site: CallRecord, parts: Moments, mini_batch: list[int]
    ) -> None:
        """d² with each whole mini-batch's moments in place of the expected statistics."""
        if max(mini_batch, default=-1) < 0 or record.layer.frozen or record.layer.eps is None:
            return
        index = _on_cpu(mini_batch)
        used = index >= 0
        batches = scatter(parts.select(used), index[used], int(index.max()) + 1)
        batches = batches.select(batches.count > 0)
        if bool((batches.count == 1).any()):
            record.single_value = True
            batches = batches.select(batches.count > 1)
        shift = squared_shift(batches.mean, batches.var, *record.estimated, record.layer.eps)
        site.squared_discrepancy += shift.total.sum(0)
        site.mini_batches += len(batches.count)


class _Travelling:
    """One batch's moments, on their way to the CPU in one piece."""

    def __init__(self, seen: list[_Seen]) -> None:
        self._seen = seen
        flat = [t.flatten() for s in seen for t in (s.moments.mean, s.moments.m2)]
        self.asynchronous = bool(flat) and flat[0].device.type == "cuda"
        if not self.asynchronous:
            return
        whole = torch.cat([t.float() if t.dtype != torch.float64 else t for t in flat])
        self._host = torch.empty(whole.shape, dtype=whole.dtype, device="cpu", pin_memory=True)
        self._host.copy_(whole, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    def arrived(self) -> list[tuple[_Seen, Tensor, Tensor]]:
        """(what was seen, mean, M2), the tensors (S, C) in float64 on the CPU."""
        if not self.asynchronous:
            return [
                (s, s.moments.mean.to("cpu").double(), s.moments.m2.to("cpu").double())
                for s in self._seen
            ]
        self._event.synchronize()
        arrived, offset = [], 0
        for seen in self._seen:
            shape, size = seen.moments.mean.shape, seen.moments.mean.numel()
            mean = self._host[offset : offset + size].view(shape).double()
            m2 = self._host[offset + size : offset + 2 * size].view(shape).double()
            offset += 2 * size
            arrived.append((seen, mean, m2))
        return arrived


def _on_cpu(numbers: Sequence[int]) -> Tensor:
    """Where the books are kept, whatever the caller's default device."""
    return torch.tensor(numbers, dtype=torch.long, device="cpu")


def _verify(layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Settle a layer of unknown kind by its own output; an unverified one has no figures."""
    if layer.note is not None:
        return False
    found = probe(layer, forward, x)
    if found is None and layer.trusted:
        layer.channel_axis = 1 if x.shape[1] == layer.channels else x.dim() - 1
        layer.verified = True
        return True
    if found is None:
        layer.note = (
            "its output on the first batch is not (x − running_mean)/√(running_var + eps)·γ + β "
            "for any usual eps"
        )
        return False
    layer.probed_gamma = found.gamma
    if layer.eps is None:
        layer.eps, layer.eps_source = found.eps, "probed"
    layer.channel_axis = found.channel_axis
    layer.verified = True
    return True


def _non_finite(seen: _Seen, mean: Tensor) -> NonFiniteError:
    bad = (~mean.isfinite()).any(0)
    channel = int(bad.int().argmax()) if bool(bad.any()) else None
    where = f" (first in channel {channel})" if channel is not None else ""
    return NonFiniteError(
        f"layer {seen.record.layer.name} receives NaN, infinite or too large values in batch "
        f"{seen.batch}{where}: no layer before it does. Look at that batch, at the layer's own "
        "weights and statistics, and try float32",
        layer=seen.record.layer.name,
        batch=seen.batch,
    )
