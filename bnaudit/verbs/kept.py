"""The first samples of a reading, kept so that what comes after need not read them again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch

from bnaudit.engine.batches import Batch, data_bytes, slice_batch
from bnaudit.engine.memory import free_memory
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.stats.jackknife import deal, group_count
from bnaudit.verbs.calibration_memory import HELD
from bnaudit.verbs.samples import MapReader, Reader

_CPU = torch.device("cpu")


@dataclass
class Kept:
    """The batches of a reader, of which the first `limit` samples are kept, as memory allows.

    Each of the `ranks` keeps what it has of the first `limit` samples of all.
    """

    reader: Reader
    limit: int
    ranks: Ranks
    batches: list[Batch] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        room = HELD * free_memory(_CPU) / self.ranks.sharing(_CPU)
        for batch in self.reader:
            room -= data_bytes(batch.data)
            left = self.limit - batch.first
            if left > 0 and (room > 0 or not self.batches):
                self.batches.append(_cut(batch, min(left, batch.size)))
            yield batch

    def of_all_ranks(self, most: int) -> Kept:
        """What all ranks kept of the first so many samples, for the first rank to work on alone."""
        own = [batch for batch in self.batches if batch.first < most]
        batches = [batch for part in self.ranks.to_first(own) for batch in part]
        batches.sort(key=lambda batch: batch.index)
        return Kept(self.reader, self.limit, ALONE, batches)

    def as_given(self, most: int = sys.maxsize) -> list[Batch]:
        """At most so many samples of what was kept, in the groups they were read in.

        Of each rank its own. On every rank, and so is `regrouped`.
        """
        starts = self._starts()
        cut = [(batch, most - starts[batch.index]) for batch in self.batches]
        return [_cut(batch, min(batch.size, left)) for batch, left in cut if left > 0]

    def regrouped(self, most: int = sys.maxsize) -> list[Batch]:
        """At most so many samples of what was kept, in as many jackknife groups as they allow."""
        batches, starts = self.as_given(most), self._starts()
        samples = sum(self.ranks.gather(sum(batch.size for batch in batches)))
        if not isinstance(self.reader, MapReader):
            final = self.reader.final_groups(samples)
            return [replace(b, groups=final[b.groups]) for b in batches]
        groups = deal(samples, group_count(samples))
        return [
            replace(b, groups=groups[starts[b.index] : starts[b.index] + b.size]) for b in batches
        ]

    def _starts(self) -> dict[int, int]:
        """How many samples of those that all ranks kept come before each batch."""
        sizes = [(batch.index, batch.size) for batch in self.batches]
        of_all = sorted(one for part in self.ranks.gather(sizes) for one in part)
        starts = accumulate((size for _, size in of_all), initial=0)
        return {index: start for (index, _), start in zip(of_all, starts, strict=False)}


def _cut(batch: Batch, size: int) -> Batch:
    if size == batch.size:
        return batch
    data = slice_batch(batch.data, 0, size, batch.size)
    return replace(batch, data=data, groups=batch.groups[:size])
