"""Which samples are read, in which order, and to which jackknife group each belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from bnaudit.engine.batches import Batch, batch_size, slice_batch
from bnaudit.errors import InputError, one_line
from bnaudit.stats.jackknife import deal, group_count
from bnaudit.targets.samples import Loaded, SkipBad
from bnaudit.verbs.fingerprint import Fingerprint

STREAM_GROUPS = 64
"""A stream's length is not known while it is dealt out: dealt finely, pooled afterwards."""

RUNS_PER_BATCH = 16
"""A stream's batch is dealt out in at most so many runs: each costs one kernel a layer on a GPU."""


class Reader(Protocol):
    """Batches in reading order. `groups` is the number in use while reading."""

    groups: int
    available: int | None
    skipped: list[str]
    notes: list[str]

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

    def fingerprint(self) -> str:
        """A short hash of what was read: the same data, order and preprocessing give the same."""


def check_positive(what: str, number: int | None) -> None:
    """Raises `InputError` where a number of samples is given that is none."""
    if number is not None and number < 1:
        raise InputError(f"{what} is {number}: give a positive number")


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


@dataclass
class MapReader:
    """A seeded random subset of a map-style data set, read in a seeded random order.

    Every batch and every group is then a random draw. `samples` None reads all. `part` limits what
    is drawn from to a stretch of the random order: readers of parts that do not overlap have no
    sample in common.
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
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
        self._read: list[Tensor] = []

    def __iter__(self) -> Iterator[Batch]:
        # The loader draws a seed for its workers from this generator, not from the global one.
        loader = DataLoader(
            self.dataset,
            batch_size=self.batch_size,
            sampler=self._order.tolist(),
            num_workers=self.workers,
            collate_fn=SkipBad(self.collate or default_collate),
            pin_memory=self.pin_memory,
            generator=torch.Generator("cpu").manual_seed(self.seed),
        )
        first, usable = 0, False
        self.skipped.clear()  # of an earlier pass
        self._read.clear()
        self._fingerprint = Fingerprint()
        for index, loaded in enumerate(loader):
            positions = self._kept(loaded, first)
            first = min(first + self.batch_size, cast(int, self.samples))
            if loaded.batch is None:
                continue
            usable = True
            self._read.append(self._order[positions])
            self._fingerprint.add(loaded.batch, len(positions))
            yield Batch(index, loaded.batch, self._group[positions])
        if not usable:
            raise InputError(
                f"none of the {self.samples} samples could be read; the first: {self.skipped[0]}"
            )

    def _kept(self, loaded: Loaded, first: int) -> Tensor:
        if loaded.error is not None:
            raise InputError(loaded.error)
        for bad in loaded.bad:
            if not self.skip_bad:
                raise InputError(
                    f"cannot read {bad.source}: {bad.error}. Mend or remove it, or leave such "
                    "samples out with --skip-bad"
                )
            self.skipped.append(f"{bad.source}: {bad.error}")
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

    def fingerprint(self) -> str:
        """Over the length, the order and what was read in the last pass, in whatever batches."""
        return self._fingerprint.hexdigest(self.available, self._order.tolist())


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
    and batches are random draws; with one that does not, they are what it makes them.
    """

    batches: Iterable[Any]
    samples: int | None = None
    batch_size: int | None = None
    source: str = "the data"
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.groups = STREAM_GROUPS
        self._dealt = 0
        self.available: int | None = None
        check_positive("samples", self.samples)
        if isinstance(self.batches, DataLoader):
            self.batch_size = self.batch_size or self.batches.batch_size
            self.available = _length(self.batches)
        self._fingerprint = Fingerprint()
        self._sizes: list[int] = []

    def __iter__(self) -> Iterator[Batch]:
        read = 0
        self._fingerprint, self._sizes = Fingerprint(), []
        for index, data in enumerate(told(self.batches, self.source)):
            size = batch_size(data)
            if size == 0:
                continue
            if self.samples is not None and read + size > self.samples:
                data = slice_batch(data, 0, self.samples - read, size)
                size = self.samples - read
            self.batch_size = self.batch_size or size
            self._fingerprint.add(data, size)
            self._sizes.append(size)
            run = -(-size // RUNS_PER_BATCH)
            runs = torch.arange(size, device="cpu") // run
            yield Batch(index, data, (self._dealt + runs) % STREAM_GROUPS)
            self._dealt += int(runs[-1]) + 1
            read += size
            if self.available is not None and read > self.available:
                self.available = None  # samples come twice, or the length is not that of the data
            if self.samples is not None and read >= self.samples:
                break

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
        groups = max(1, min(group_count(samples), self._dealt))
        return torch.arange(STREAM_GROUPS, device="cpu") % groups

    def fingerprint(self) -> str:
        """Over what was read in the last pass, and in which batches: they make the groups."""
        return self._fingerprint.hexdigest(self._sizes)
