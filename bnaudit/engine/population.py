"""What every method of recalibration works on and gives, and how inputs become populations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bnaudit.engine.batches import Batch
from bnaudit.engine.collect import Runs
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.ranks import Ranks
from bnaudit.engine.stopwatch import doing
from bnaudit.errors import NonFiniteError
from bnaudit.stats.kernels import RunMoments, Scratch, run_moments
from bnaudit.stats.moments import GroupedMoments, Moments, merge, pool

Statistics = tuple[Tensor, Tensor]
"""(mean, biased variance), each (C,) float64 on the CPU."""

Rule = Callable[[BNLayer, Tensor, Tensor], Statistics | None]
"""(layer, mean, biased variance) -> what it normalises by from then on; None keeps its own. A rule
that gives None for a layer once does so always, and so with statistics."""


@dataclass(frozen=True)
class Calibration:
    """The work: a model, the layers that may change, and the data. Inside `conditions.entered`.

    `batches` can be gone through several times; `groups` is the number of jackknife groups that
    their samples are dealt to. `progress` is called with 1 for every layer that is done.
    """

    model: nn.Module
    layers: Sequence[BNLayer]
    batches: Iterable[Batch]
    groups: int
    conditions: Conditions
    rule: Rule
    progress: Callable[[int], None] = lambda done: None

    @property
    def ranks(self) -> Ranks:
        """Who shares the work: `batches` are those of one rank."""
        return self.conditions.ranks

    def forward(self, batch: Batch) -> Any:
        """The model's output for a batch."""
        return self.conditions.run(self.model, self.conditions.moved(batch), batch)


@dataclass(frozen=True)
class Population:
    """What a layer saw, by jackknife group, and the statistics that it got; None: kept its own."""

    groups: Moments
    statistics: Statistics | None


@dataclass
class Result:
    """The populations by layer, in the order in which they were settled; `notes` for the reader."""

    populations: dict[BNLayer, Population] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def statistics(self) -> dict[BNLayer, Statistics]:
        """The layers that got new statistics, with these."""
        found = self.populations.items()
        return {layer: p.statistics for layer, p in found if p.statistics is not None}

    def together(self, ranks: Ranks) -> None:
        """From here on with the groups of all ranks, and the statistics of the first, bit for bit.

        Once, at the end: at the barriers only what is pooled over the groups travels.
        """
        if ranks.size == 1:
            return
        layers = list(self.populations)
        own = [population.groups for population in self.populations.values()]
        groups: list[Moments] | None = None
        for share in ranks.each(own):
            groups = share if groups is None else list(map(merge, groups, share))
        assert groups is not None
        statistics = ranks.from_first(lambda: [self.populations[x].statistics for x in layers])
        found = map(Population, groups, statistics)
        self.populations = dict(zip(layers, found, strict=True))


@dataclass(frozen=True)
class Seen:
    """One input of a layer: its batch, its moments by runs of samples, the group of each run."""

    batch: int
    moments: RunMoments
    groups: tuple[int, ...]


class Account:
    """From the inputs of a layer to its population."""

    def __init__(self, work: Calibration) -> None:
        self._work = work
        self._scratch = Scratch()

    def look(self, batch: Batch, layer: BNLayer, x: Tensor) -> Seen | None:
        """Reduce one input to its moments; None for an empty one."""
        if x.numel() == 0:
            return None
        with doing("moments"):
            values = channels_first(layer, x)
            runs = Runs.of(batch, None)
            bounds, kept = runs.rows(values.shape[0])
            moments = run_moments(values, bounds, self._scratch)
        return Seen(batch.index, moments, tuple(runs.group[i] for i in kept))

    def population(self, layer: BNLayer, seen: Sequence[Seen]) -> Population:
        """All that the layer saw together on all ranks, and what the rule makes of it.

        The groups are those of this rank: see `Result.together`. Raises `NonFiniteError` with the
        name of the layer and the batch.
        """
        own, whole = self.own(layer, seen)
        ranks = self._work.ranks
        if ranks.size > 1:
            whole = pool(unpacked(torch.stack(ranks.gather_tensor(packed(whole)))))
        return self.settled(layer, own, whole)

    def settled(self, layer: BNLayer, own: Moments, whole: Moments) -> Population:
        """From its groups on this rank and the moments (1, C) over all of them."""
        statistics = None
        if whole.count.item() > 1:  # a single value has no variance
            statistics = self._work.rule(layer, whole.mean[0], whole.var[0])
        return Population(own, statistics)

    def own(self, layer: BNLayer, seen: Sequence[Seen]) -> tuple[Moments, Moments]:
        """What the layer saw on this rank, by jackknife group, and pooled, (1, C).

        Raises `NonFiniteError`.
        """
        with doing("moments"):
            groups = self._groups(layer, seen)
            return groups, pool(groups)

    def _groups(self, layer: BNLayer, seen: Sequence[Seen]) -> Moments:
        account = GroupedMoments(self._work.groups, layer.channels)
        if not seen:
            return account.moments
        both = [torch.cat([getattr(one.moments, of) for one in seen]) for of in ("mean", "m2")]
        mean, m2 = torch.stack(both).to("cpu").double()  # one copy: it waits for the device
        _check_finite(layer, mean + m2, [one.batch for one in seen for _ in one.groups])
        counts = [float(count) for one in seen for count in one.moments.counts]
        groups = [group for one in seen for group in one.groups]
        account.add(
            Moments(torch.tensor(counts, dtype=torch.float64, device="cpu"), mean, m2),
            torch.tensor(groups, device="cpu"),
        )
        return account.moments


def packed(whole: Moments) -> Tensor:
    """The moments (1, C) of a layer side by side, (2C + 1,): what ranks send each other."""
    return torch.cat([whole.count, whole.mean[0], whole.m2[0]])


def unpacked(rows: Tensor) -> Moments:
    """The same of several ranks, (P, 2C + 1), as so many parts."""
    channels = rows.shape[1] // 2
    count, mean, m2 = rows.split([1, channels, channels], dim=1)
    return Moments(count.flatten(), mean, m2)


def _check_finite(layer: BNLayer, figures: Tensor, batch_of: list[int]) -> None:
    bad = (~figures.isfinite()).any(1)
    if bool(bad.any()):
        batch = batch_of[int(bad.int().argmax())]
        raise NonFiniteError(
            f"layer {layer.name} receives NaN, infinite or too large values in batch {batch}, with "
            "every layer before it recalibrated. Look at that batch, and try float32",
            layer=layer.name,
            batch=batch,
        )


class Stopped(BaseException):
    """The forward has come as far as it has to."""


def in_order(layers: Iterable[BNLayer], order: list[str], beyond: int = 0) -> list[BNLayer]:
    """The layers from place `beyond` of `order` on; those that are not in it come last."""
    rank = {name: i for i, name in enumerate(order)}
    found = [layer for layer in layers if rank.get(layer.name, len(rank)) >= beyond]
    return sorted(found, key=lambda layer: rank.get(layer.name, len(rank)))
