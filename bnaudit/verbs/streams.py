"""Batches of the caller's own making, read as they come and dealt to jackknife groups in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bnaudit.engine.batches import Batch, batch_size, content_hashes, slice_batch
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.engine.stopwatch import timed
from bnaudit.errors import InputError, one_line
from bnaudit.stats.jackknife import group_count
from bnaudit.verbs.fingerprint import Fingerprint
from bnaudit.verbs.samples import check_positive

STREAM_GROUPS = 64
"""A stream's length is not known while it is dealt out: dealt finely, pooled afterwards."""

RUNS_PER_BATCH = 16
"""A stream's batch is dealt out in at most so many runs: each costs one kernel a layer on a GPU."""


def told(batches: Iterable[Any], source: str) -> Iterator[Any]:
    """The batches; what the caller's own code raises is the caller's, and is said so."""
    iterator = iter(batches)
    for index in count():
        try:
            data = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise InputError(f"{source}: reading batch {index} raised {one_line(error)}") from error
        yield data


def _length(loader: DataLoader[Any]) -> int | None:
    """The number of samples that a loader draws, from its sampler where that is what draws them.

    Samplers draw fewer than there are (one of several processes), or more (with replacement). None
    where nobody knows, or the data set is one of batches.
    """
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    counted = loader.dataset if loader.batch_size is None else loader.sampler
    try:
        return len(cast(Sized, counted))
    except (TypeError, RuntimeError):  # samplers without a length raise either
        return None


@dataclass
class StreamReader:
    """Any iterable of batches, in its own order, to its end or to `samples` samples.

    Samples are dealt to groups in turn, inside each batch: with a loader that shuffles, groups
    and batches are random draws; with one that does not, they are what it makes them. On several
    ranks each one's iterable is its own part of the data, and `samples` are those of all.
    """

    batches: Iterable[Any]
    samples: int | None = None
    batch_size: int | None = None
    source: str = "the data"
    notes: list[str] = field(default_factory=list)
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        self.groups = STREAM_GROUPS
        self._dealt = 0
        self.available: int | None = None
        check_positive("samples", self.samples)
        self._limit = self.samples
        if self.samples is not None:
            more = self.ranks.rank < self.samples % self.ranks.size
            self._limit = self.samples // self.ranks.size + more
        if isinstance(self.batches, DataLoader):
            self.batch_size = self.batch_size or self.batches.batch_size
            self.available = _length(self.batches) if self.ranks.size == 1 else None
        self._fingerprint = Fingerprint()
        self._sizes: list[int] = []

    def __iter__(self) -> Iterator[Batch]:
        return timed(self._reading())

    def _reading(self) -> Iterator[Batch]:
        read = 0
        self._fingerprint, self._sizes = Fingerprint(), []
        rank, ranks, limit = self.ranks.rank, self.ranks.size, self._limit
        for index, data in enumerate(self._own_part()):
            size = batch_size(data)
            if size == 0:
                continue
            if limit is not None and read >= limit:
                break
            if limit is not None and read + size > limit:
                data = slice_batch(data, 0, limit - read, size)
                size = limit - read
            self.batch_size = self.batch_size or size
            places = [rank + ranks * (read + i) for i in range(size)]
            self._fingerprint.add(data, places)
            self._sizes.append(size)
            run = -(-size // RUNS_PER_BATCH)
            runs = torch.arange(size, device="cpu") // run
            groups = (self._dealt + runs) % STREAM_GROUPS
            yield Batch(rank + ranks * index, data, groups, ranks * read)
            self._dealt += int(runs[-1]) + 1
            read += size
            if self.available is not None and read > self.available:
                self.available = None  # samples come twice, or the length is not that of the data
            if limit is not None and read >= limit:
                break

    def _own_part(self) -> Iterator[Any]:
        """The batches. Raises `InputError` where two ranks have the same ones."""
        batches = told(self.batches, self.source)
        if self.ranks.size == 1:
            yield from batches
            return
        first = next(batches, None)
        batch = None if first is None else Batch(0, first, torch.zeros(batch_size(first)))
        hashes = self.ranks.gather(content_hashes(batch) if batch is not None else [])
        for rank in range(self.ranks.size):
            same = hashes.index(hashes[rank]) if hashes[rank] else rank
            if same < rank:
                raise InputError(
                    f"{self.source}: ranks {same} and {rank} begin with the same batch; give each "
                    "rank its own part, or a Dataset, which bnaudit deals out itself"
                )
        if first is not None:
            yield first
            yield from batches

    @property
    def total(self) -> int | None:
        """The limit, or the length of the loader's data set."""
        if self.samples is not None and self.available is not None:
            return min(self.samples, self.available)
        return self.samples if self.samples is not None else self.available

    @property
    def pass_batch_size(self) -> int | None:
        """The loader's own, or the size of the first batch."""
        return self.batch_size

    @property
    def mini_batch_size(self) -> int | None:
        """That of the first batch."""
        return None

    @property
    def order_seed(self) -> int | None:
        """The order is the loader's."""
        return None

    def final_groups(self, samples: int) -> Tensor:
        """Pool the fine groups into as many as `samples` allow."""
        dealt = self._dealt if self.ranks.size == 1 else STREAM_GROUPS
        groups = max(1, min(group_count(samples), dealt))
        return torch.arange(STREAM_GROUPS, device="cpu") % groups

    def skipped(self) -> tuple[str, ...]:
        """A stream leaves out nothing."""
        return ()

    def fingerprint(self) -> str:
        """Over what was read in the last pass, and in which batches: they make the groups."""
        return self._fingerprint.hexdigest(self.ranks, self.ranks.gather(self._sizes))
