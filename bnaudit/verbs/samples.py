"""Which samples are read, in which order, and to which jackknife group each belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from bnaudit.engine.batches import Batch
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.engine.stopwatch import timed
from bnaudit.errors import InputError
from bnaudit.stats.jackknife import deal, group_count
from bnaudit.targets.loading import loaded_batches
from bnaudit.targets.samples import Loaded, SkipBad
from bnaudit.verbs.fingerprint import Fingerprint


class Reader(Protocol):
    """Batches in reading order: those of one rank. `groups` is the number in use while reading."""

    groups: int
    available: int | None
    notes: list[str]
    ranks: Ranks

    @property
    def total(self) -> int | None:
        """The number of samples that will be read, None where nobody knows."""

    @property
    def pass_batch_size(self) -> int | None:
        """The size of the batches, None until the first one has been seen."""

    @property
    def mini_batch_size(self) -> int | None:
        """The size of mini-batches where nobody gives one, None: that of the first batch."""

    @property
    def order_seed(self) -> int | None:
        """What drew the subset and its order, None where the loader did."""

    def __iter__(self) -> Iterator[Batch]: ...

    def final_groups(self, samples: int) -> Tensor:
        """For each group in use, the group it is pooled into once `samples` have been read."""

    def skipped(self) -> tuple[str, ...]:
        """The samples that no rank could read in the last pass. On every rank."""

    def fingerprint(self) -> str:
        """A short hash of what was read: the same data, order and preprocessing give the same.

        On every rank.
        """


def check_positive(what: str, number: int | None) -> None:
    """Raises `InputError` where a number of samples is given that is none."""
    if number is not None and number < 1:
        raise InputError(f"{what} is {number}: give a positive number")


@dataclass
class MapReader:
    """A seeded random subset of a map-style data set, read in a seeded random order.

    Every batch and every group is then a random draw. `samples` None reads all. `part` limits what
    is drawn from to a stretch of the random order: readers of parts that do not overlap have no
    sample in common. Of several ranks each reads every so many-th batch: together they read what
    one would, in the same batches and groups. `finish` is given what each list of samples came to,
    in this process (see `DataTarget`).
    """

    dataset: Dataset[Any]
    batch_size: int
    samples: int | None
    seed: int
    workers: int = 0
    collate: Callable[[list[Any]], Any] | None = None
    pin_memory: bool = False
    skip_bad: bool = False
    part: tuple[float, float] = (0.0, 1.0)
    notes: list[str] = field(default_factory=list)
    ranks: Ranks = ALONE
    finish: Callable[[Loaded], Loaded] | None = None

    def __post_init__(self) -> None:
        self.available: int | None = len(cast(Sized, self.dataset))
        if self.available == 0:
            raise InputError("the data set is empty: nothing to measure on")
        for what, number in (("batch_size", self.batch_size), ("samples", self.samples)):
            check_positive(what, number)
        generator = torch.Generator("cpu").manual_seed(self.seed)
        order = torch.randperm(self.available, generator=generator, device="cpu")
        order = order[slice(*(round(share * self.available) for share in self.part))]
        self.asked = self.samples
        self.samples = min(self.samples or len(order), len(order))
        if self.samples == 0:
            raise InputError(f"{self.available} samples are too few to be split: give more")
        self.groups = group_count(self.samples)
        self._order = order[: self.samples]
        self._group = deal(self.samples, self.groups)
        self._fingerprint = Fingerprint()
        self._skipped: list[tuple[int, str]] = []
        self._read: list[Tensor] = []

    def __iter__(self) -> Iterator[Batch]:
        return timed(self._reading())

    def _reading(self) -> Iterator[Batch]:
        self._skipped.clear()  # of an earlier pass
        self._read.clear()
        self._fingerprint = Fingerprint()
        batches = -(-cast(int, self.samples) // self.batch_size)
        for positions, batch in self._batches(range(self.ranks.rank, batches, self.ranks.size)):
            self._read.append(self._order[positions])
            self._fingerprint.add(batch.data, positions.tolist())
            yield batch
        if self.ranks.size == 1 and not self._read:
            first = self._skipped[0][1]
            raise InputError(
                f"none of the {self.samples} samples could be read; the first: {first}"
            )

    def _batches(self, indices: Sequence[int]) -> Iterator[tuple[Tensor, Batch]]:
        """The batches of these numbers, with the places of their samples in the reading order."""
        size = self.batch_size
        # The loader draws a seed for its workers from this generator, not from the global one.
        loader = DataLoader(
            self.dataset,
            batch_sampler=[self._order[i * size : (i + 1) * size].tolist() for i in indices],
            num_workers=self.workers,
            collate_fn=SkipBad(self.collate or default_collate),
            pin_memory=self.pin_memory,
            generator=torch.Generator("cpu").manual_seed(self.seed),
        )
        for index, loaded in zip(indices, loaded_batches(loader), strict=True):
            if self.finish is not None:
                loaded = self.finish(loaded)
            first = index * size
            positions = self._kept(loaded, first)
            if loaded.batch is not None:
                yield positions, Batch(index, loaded.batch, self._group[positions], first)

    def _kept(self, loaded: Loaded, first: int) -> Tensor:
        """The places in the reading order of the samples that could be read."""
        if loaded.error is not None:
            raise InputError(loaded.error)
        for bad in loaded.bad:
            if not self.skip_bad:
                raise InputError(
                    f"cannot read {bad.source}: {bad.error}. Mend or remove it, or leave such "
                    "samples out with --skip-bad"
                )
            self._skipped.append((first, f"{bad.source}: {bad.error}"))
        return torch.tensor(loaded.kept, dtype=torch.long, device="cpu") + first

    @property
    def total(self) -> int | None:
        """The size of the subset."""
        return self.samples

    @property
    def pass_batch_size(self) -> int | None:
        """As asked for."""
        return self.batch_size

    @property
    def mini_batch_size(self) -> int | None:
        """That of a whole batch, also where samples of the first one are left out."""
        return min(self.batch_size, self.samples or self.batch_size)

    @property
    def order(self) -> Tensor:
        """The numbers in the data set of the samples that the last pass read, in reading order.

        int64, (n,), on the CPU; unreadable samples are not among them. Empty before a pass.
        """
        return torch.cat(self._read) if self._read else self._order[:0]

    @property
    def order_seed(self) -> int | None:
        """As asked for."""
        return self.seed

    def final_groups(self, samples: int) -> Tensor:
        """The groups were right from the start."""
        return torch.arange(self.groups, device="cpu")

    def skipped(self) -> tuple[str, ...]:
        """In reading order."""
        of_all = [one for part in self.ranks.gather(self._skipped) for one in part]
        return tuple(text for _, text in sorted(of_all, key=lambda one: one[0]))

    def fingerprint(self) -> str:
        """Over the length, the order and what was read in the last pass, in whatever batches."""
        return self._fingerprint.hexdigest(self.ranks, self.available, self._order.tolist())
