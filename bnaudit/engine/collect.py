"""The deployed pass: every layer normalises by its own estimates, and its input is measured.

What a layer sees is reduced to the moments of short runs of samples on the device, and merged on
the CPU in float64 once a batch: on an accelerator the results of one batch travel while the next
one runs, so that nothing waits for a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.batches import Batch
from bnaudit.engine.books import Books, LayerRecord, Site, estimated_of, of_all_ranks
from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.probe import agree, settled
from bnaudit.engine.ranks import Ranks
from bnaudit.engine.stopwatch import doing
from bnaudit.errors import NonFiniteError
from bnaudit.stats.kernels import RunMoments, Scratch, run_moments


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


@dataclass(frozen=True)
class _Seen:
    site: Site
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
        self._calls: dict[str, int] = {}
        self._books: dict[tuple[tuple[str, int], ...], Books] = {}
        self._seen: list[_Seen] = []
        self._travelling: _Travelling | None = None
        self._batch: Batch | None = None
        self._runs: Runs | None = None

    def start(self, batch: Batch) -> None:
        """The forward of `batch` is about to run."""
        self._batch = batch
        self._runs = Runs.of(batch, self._mini_batch_size)
        self._calls.clear()
        self._seen = []

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Measure `x` and return the layer's own output."""
        assert self._batch is not None
        assert self._runs is not None
        record = self._record(layer, self._batch)
        record.calls += 1
        record.switched_to_training |= layer.module.training
        if isinstance(x, Tensor) and x.numel() == 0:
            record.empty_calls += 1
            return forward(x)
        if not settled(layer, forward, x):
            return forward(x)
        call = self._calls.get(layer.name, 0)
        self._calls[layer.name] = call + 1
        with doing("moments"):
            values = channels_first(layer, x)
            bounds, kept = self._runs.rows(values.shape[0])
            moments = run_moments(values, bounds, self._scratch)
            seen = _Seen(Site(record, call), self._runs, kept, self._batch.index, moments)
            self._seen.append(seen)
        return forward(x)

    def _record(self, layer: BNLayer, batch: Batch) -> LayerRecord:
        record = self.records.get(layer.name)
        if record is None:
            order = len(self.records)
            record = LayerRecord(layer, order, (batch.index, order), estimated_of(layer))
            self.records[layer.name] = record
        return record

    def end(self) -> None:
        """The forward is done: send its moments on their way, and merge those of the last one."""
        with doing("moments"):
            sent = _Travelling(self._seen)
        self._seen = []
        self.settle()
        self._travelling = sent
        if not sent.asynchronous:
            self.settle()

    def finish(self, layers: Iterable[BNLayer], ranks: Ranks) -> None:
        """Merge what is still travelling, and what all ranks saw. Call after the last batch.

        `layers`: those that may have been called.
        """
        self.settle()
        with doing("moments"):
            for books in self._books.values():
                books.close()
            self._books.clear()
            layers = list(layers)
        agree(layers, ranks)
        self.records = of_all_ranks(self.records, layers, ranks)

    def settle(self) -> None:
        """Merge what is still travelling. Raises `NonFiniteError`."""
        if self._travelling is not None:
            travelling, self._travelling = self._travelling, None
            with doing("moments"):
                self._merge(travelling)

    def _merge(self, travelling: _Travelling) -> None:
        """Sites that saw the same runs are merged together: all of them, but for odd inputs."""
        arrived = travelling.arrived()
        by_runs: dict[tuple[int, ...], list[tuple[_Seen, Tensor, Tensor]]] = {}
        for entry in arrived:
            by_runs.setdefault(entry[0].kept, []).append(entry)
        for kept, entries in by_runs.items():
            seen = [entry[0] for entry in entries]
            mean = torch.cat([entry[1] for entry in entries], 1)
            m2 = torch.cat([entry[2] for entry in entries], 1)
            if not bool((mean + m2).isfinite().all()):
                raise _non_finite(arrived)
            key = tuple(one.site.key for one in seen)
            if key not in self._books:
                self._books[key] = Books([one.site for one in seen], self._groups)
            runs = seen[0].runs
            self._books[key].add(
                [one.moments for one in seen],
                mean,
                m2,
                [runs.group[i] for i in kept],
                [runs.mini_batch[i] for i in kept],
            )


class _Travelling:
    """One batch's moments, on their way to the CPU in one piece."""

    def __init__(self, seen: list[_Seen]) -> None:
        self._seen = seen
        flat = [t.flatten() for s in seen for t in (s.moments.mean, s.moments.m2)]
        # The layers of one model may be on several devices: these are waited for one by one.
        places = {t.device for t in flat}
        self.asynchronous = len(places) == 1 and next(iter(places)).type == "cuda"
        if not self.asynchronous:
            return
        whole = torch.cat([t.float() if t.dtype != torch.float64 else t for t in flat])
        self._host = torch.empty(whole.shape, dtype=whole.dtype, device="cpu", pin_memory=True)
        self._host.copy_(whole, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(whole.device))

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


def _non_finite(arrived: list[tuple[_Seen, Tensor, Tensor]]) -> NonFiniteError:
    """Names the first layer, in call order, whose input is at fault."""
    seen, mean, _ = next(e for e in arrived if not bool((e[1] + e[2]).isfinite().all()))
    bad = (~mean.isfinite()).any(0)
    where = f" (first in channel {int(bad.int().argmax())})" if bool(bad.any()) else ""
    name = seen.site.record.layer.name
    return NonFiniteError(
        f"layer {name} receives NaN, infinite or too large values in batch {seen.batch}{where}: no "
        "layer before it does. Look at that batch, at the layer's own weights and statistics, and "
        "try float32",
        layer=name,
        batch=seen.batch,
    )
