"""What the layers saw, merged once a batch: the channels of all layers stand side by side.

A ResNet-50 has 53 layers; merging each by itself costs more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer
from bnaudit.engine.ranks import Ranks
from bnaudit.stats.kernels import RunMoments
from bnaudit.stats.moments import GroupedMoments, Moments, merge, scatter
from bnaudit.stats.shift import squared_shift


@dataclass(frozen=True)
class CallRecord:
    """What one call site of a layer saw, over all batches: the moments of each group, and the sums
    over `mini_batches` mini-batches of each channel's squared discrepancy, (C,). `covered`, one
    part, is the population of those mini-batches: the partial one at the end is not in it.
    """

    groups: Moments
    covered: Moments
    squared_discrepancy: Tensor
    mini_batches: int

    def plus(self, other: CallRecord) -> CallRecord:
        """The two together."""
        return CallRecord(
            merge(self.groups, other.groups),
            merge(self.covered, other.covered),
            self.squared_discrepancy + other.squared_discrepancy,
            self.mini_batches + other.mini_batches,
        )


@dataclass
class LayerRecord:
    """What a layer saw: one `CallRecord` for each of its calls in a forward.

    `first`: batch and place of its first call; `order`: its place among the layers by that.
    """

    layer: BNLayer
    order: int
    first: tuple[int, int]
    estimated: tuple[Tensor, Tensor]
    calls: int = 0
    empty_calls: int = 0
    single_value: bool = False
    switched_to_training: bool = False
    by_call: dict[int, CallRecord] = field(default_factory=dict)

    @property
    def sites(self) -> list[CallRecord]:
        """One record for each of the layer's calls in a forward, in their order."""
        return [self.by_call[call] for call in sorted(self.by_call)]

    @property
    def judged_by_mini_batches(self) -> bool:
        """Frozen layers keep their statistics in training too: they have no discrepancy."""
        return self.layer.eps is not None and not self.layer.frozen


@dataclass(frozen=True)
class _Share:
    """What a layer saw on one rank, without the layer itself."""

    first: tuple[int, int]
    estimated: tuple[Tensor, Tensor]
    calls: int
    empty_calls: int
    single_value: bool
    switched_to_training: bool
    by_call: dict[int, CallRecord]


def of_all_ranks(
    records: dict[str, LayerRecord], layers: Iterable[BNLayer], ranks: Ranks
) -> dict[str, LayerRecord]:
    """What the `layers` saw on all ranks together, in the order in which they were first called."""
    if ranks.size == 1:
        return records
    own = {
        name: _Share(
            r.first,
            r.estimated,
            r.calls,
            r.empty_calls,
            r.single_value,
            r.switched_to_training,
            r.by_call,
        )
        for name, r in records.items()
    }
    by_name = {layer.name: layer for layer in layers}
    found: dict[str, LayerRecord] = {}
    for shares in ranks.each(own):
        for name, share in shares.items():
            record = found.get(name)
            if record is None:
                record = LayerRecord(by_name[name], 0, share.first, share.estimated)
                found[name] = record
            record.first = min(record.first, share.first)
            record.calls += share.calls
            record.empty_calls += share.empty_calls
            record.single_value |= share.single_value
            record.switched_to_training |= share.switched_to_training
            for call, there in share.by_call.items():
                here = record.by_call.get(call)
                record.by_call[call] = there if here is None else here.plus(there)
    together = dict(sorted(found.items(), key=lambda item: item[1].first))
    for order, record in enumerate(together.values()):
        record.order = order
    return together


def estimated_of(layer: BNLayer) -> tuple[Tensor, Tensor]:
    """A layer's estimated statistics, (C,) each, float64, on the CPU."""
    mean, var = (t.detach().to("cpu", torch.float64) for t in layer.estimated)
    return mean, var


@dataclass(frozen=True)
class Site:
    """One call site of a layer."""

    record: LayerRecord
    call: int

    @property
    def key(self) -> tuple[str, int]:
        """What names it."""
        return self.record.layer.name, self.call


class Books:
    """The account of one sequence of call sites: nearly always that of all batches."""

    def __init__(self, sites: Sequence[Site], groups: int) -> None:
        self.sites = sites
        layers = [site.record.layer for site in sites]
        self._sizes = [layer.channels for layer in layers]
        self._groups = GroupedMoments.side_by_side(groups, sum(self._sizes))
        self._mean, self._var = (
            torch.cat([site.record.estimated[i] for site in sites]) for i in (0, 1)
        )
        self._eps = self._wide([layer.eps or 0.0 for layer in layers])
        judged = self._wide([float(site.record.judged_by_mini_batches) for site in sites]) > 0
        self._judged = judged
        self._squared_discrepancy = torch.zeros_like(self._mean)
        self._mini_batches = torch.zeros_like(self._mean)
        self._covered = GroupedMoments.side_by_side(1, sum(self._sizes))
        self._single_value = torch.zeros_like(judged)

    def _wide(self, values: Sequence[float]) -> Tensor:
        """One value a site -> one a channel."""
        sizes = torch.tensor(self._sizes, device="cpu")
        return torch.tensor(values, dtype=torch.float64, device="cpu").repeat_interleave(sizes)

    def add(
        self,
        moments: Sequence[RunMoments],
        mean: Tensor,
        m2: Tensor,
        group: Sequence[int],
        mini_batch: Sequence[int],
    ) -> None:
        """The runs of one batch: `mean` and `m2` (S, ΣC) of all sites, in their order.

        `group`, `mini_batch`: of each run; −1 is the partial mini-batch, which is left out.
        """
        count = torch.stack(
            [self._wide(counts) for counts in zip(*(m.counts for m in moments), strict=True)]
        )
        parts = Moments(count, mean, m2)
        self._groups.add(parts, torch.tensor(group, device="cpu"))
        if max(mini_batch) < 0:
            return
        index = torch.tensor(mini_batch, device="cpu")
        used = index >= 0
        batches = scatter(parts.select(used), index[used], int(index.max()) + 1)
        self._covered.add(batches, torch.zeros(len(batches.count), dtype=torch.long, device="cpu"))
        shift = squared_shift(batches.mean, batches.var, self._mean, self._var, self._eps).total
        whole = self._judged & (batches.count > 1)
        self._squared_discrepancy += torch.where(whole, shift, 0.0).sum(0)
        self._mini_batches += whole.sum(0)
        self._single_value |= (self._judged & (batches.count == 1)).any(0)

    def close(self) -> None:
        """Hand every site its share."""
        account, covered = self._groups.moments, self._covered.moments
        start = 0
        for site, size in zip(self.sites, self._sizes, strict=True):
            own = slice(start, start + size)
            start += size
            seen = CallRecord(
                Moments(account.count[:, own.start], account.mean[:, own], account.m2[:, own]),
                Moments(covered.count[:, own.start], covered.mean[:, own], covered.m2[:, own]),
                self._squared_discrepancy[own],
                int(self._mini_batches[own.start]),
            )
            record = site.record
            record.single_value |= bool(self._single_value[own.start])
            before = record.by_call.get(site.call)
            record.by_call[site.call] = seen if before is None else before.plus(seen)
