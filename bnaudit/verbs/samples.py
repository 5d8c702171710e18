"""Which samples are read, in which order, and to which jackknife group each belongs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from bnaudit.engine.batches import Batch, batch_size, data_bytes, map_tensors, slice_batch
from bnaudit.engine.memory import SHARE, free_memory
from bnaudit.errors import InputError, one_line
from bnaudit.results import DataInfo
from bnaudit.stats.jackknife import deal, group_count
from bnaudit.targets.samples import Loaded, SkipBad

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


def _told(batches: Iterable[Any], source: str) -> Iterator[Any]:
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


class _Fingerprint:
    """SHA-256 over a description and the first sample as the model gets it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._first = True

    def describe(self, *facts: object) -> None:
        self._hash.update(repr(facts).encode())

    def first_sample(self, data: Any) -> None:
        if self._first:
            self._first = False
            map_tensors(self._tensor, data)

    def _tensor(self, tensor: Tensor) -> Tensor:
        head = tensor[:1].detach().cpu().contiguous()
        self._hash.update(str((head.dtype, tuple(head.shape))).encode())
        self._hash.update(head.flatten().view(torch.uint8).numpy().tobytes())
        return tensor

    def hexdigest(self) -> str:
        return self._hash.hexdigest()[:16]


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
        self._fingerprint = _Fingerprint()

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
        for index, loaded in enumerate(loader):
            positions = self._kept(loaded, first)
            first = min(first + self.batch_size, cast(int, self.samples))
            if loaded.batch is None:
                continue
            usable = True
            self._fingerprint.first_sample(loaded.batch)
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
    def order_seed(self) -> int | None:
        """As asked for."""
        return self.seed

    def final_groups(self, samples: int) -> Tensor:
        """The groups were right from the start."""
        return torch.arange(self.groups, device="cpu")

    def fingerprint(self) -> str:
        """Over the length, the order and the first sample."""
        self._fingerprint.describe(self.available, self._order.tolist())
        return self._fingerprint.hexdigest()


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
        loader = self.batches
        if isinstance(loader, DataLoader):
            self.batch_size = self.batch_size or loader.batch_size
            if not isinstance(loader.dataset, IterableDataset):
                self.available = len(cast(Sized, loader.dataset))
        self._fingerprint = _Fingerprint()

    def __iter__(self) -> Iterator[Batch]:
        read = 0
        for index, data in enumerate(_told(self.batches, self.source)):
            size = batch_size(data)
            if size == 0:
                continue
            if self.samples is not None and read + size > self.samples:
                data = slice_batch(data, 0, self.samples - read, size)
                size = self.samples - read
            self.batch_size = self.batch_size or size
            self._fingerprint.first_sample(data)
            run = -(-size // RUNS_PER_BATCH)
            runs = torch.arange(size, device="cpu") // run
            yield Batch(index, data, (self._dealt + runs) % STREAM_GROUPS)
            self._dealt += int(runs[-1]) + 1
            read += size
            if self.samples is not None and read >= self.samples:
                break
        self._fingerprint.describe(read)

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
        """Over the first sample and the number read."""
        return self._fingerprint.hexdigest()


def reader_of(
    data: Dataset[Any] | Iterable[Any],
    batch_size: int,
    samples: int | None,
    seed: int,
    workers: int,
    device: torch.device,
) -> Reader:
    """A map-style data set is drawn from in an order of ours; anything else is read as it comes."""
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        pin_memory = device.type == "cuda"
        return MapReader(data, batch_size, samples, seed, workers, pin_memory=pin_memory)
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InputError(
            f"data is {data!r}: give a Dataset, a DataLoader or an iterable of batches"
        )
    return StreamReader(data, samples)


class HostRoom:
    """How much more of a loader the host can hold."""

    def __init__(self) -> None:
        self._left = SHARE * free_memory(torch.device("cpu"))
        self._samples = 0

    def take(self, data: Any, samples: int) -> None:
        """One more batch. Raises `InputError` where it does not fit."""
        self._left -= data_bytes(data)
        self._samples += samples
        if self._left < 0:
            raise InputError(
                f"the loader's first {self._samples:,} samples fill the memory that may be used, "
                "and it goes on: give samples (--samples), or a data set instead of a loader"
            )


def split_reader(reader: Reader, share: float, others: int | None) -> tuple[Reader, Reader]:
    """(a reader without `share` of the data, one of that share, at most `others` samples of it).

    A data set is split in its seeded random order. A stream is read now, and of every few batches
    one goes to the other part.
    """
    if isinstance(reader, MapReader):
        cut = 1 - share
        mine = replace(reader, part=(0.0, cut), samples=reader.asked, skipped=[], notes=[])
        theirs = replace(reader, part=(cut, 1.0), samples=others, skipped=[], notes=[])
        return mine, theirs
    assert isinstance(reader, StreamReader)
    parts: tuple[list[Any], list[Any]] = ([], [])
    counts, wanted, room = [0, 0], [reader.samples, others], HostRoom()
    for index, data in enumerate(_told(reader.batches, reader.source)):
        part = int(int((index + 1) * share) > int(index * share))
        limit = wanted[part]
        if limit is None or counts[part] < limit:
            samples = batch_size(data)
            room.take(data, samples)
            parts[part].append(data)
            counts[part] += samples
        if all(n is not None and count >= n for n, count in zip(wanted, counts, strict=True)):
            break
    if not parts[1] and len(parts[0]) > 1:
        parts[1].append(parts[0].pop())
    if not parts[0] and len(parts[1]) > 1:
        parts[0].append(parts[1].pop())
    if not (parts[0] and parts[1]):
        raise InputError(
            f"{reader.source}: {sum(map(len, parts))} batches cannot be split: give smaller ones, "
            "or verification data of their own"
        )
    size, source = reader.batch_size, reader.source
    return (
        StreamReader(parts[0], reader.samples, size, source),
        StreamReader(parts[1], others, size, source),
    )


@dataclass(frozen=True)
class Source:
    """Data of one part of the work, and how they are called."""

    reader: Reader
    name: str
    transform: str | None = None

    def split(self, share: float, verify_samples: int | None) -> tuple[Source, Source]:
        """These without `share` of them, and that share, for verification."""
        if not 0 < share < 1:
            raise InputError(f"verify_split is {share}: give a share between 0 and 1")
        mine, others = split_reader(self.reader, share, verify_samples)
        return replace(self, reader=mine), replace(self, reader=others)


def data_info(
    reader: Reader, source: str, samples: int, transform: str | None, *, labelled: bool
) -> DataInfo:
    """What was read, once it has been read: `samples` in all."""
    return DataInfo(
        source=source,
        samples=samples,
        available=reader.available,
        batch_size=reader.pass_batch_size,
        seed=reader.order_seed,
        groups=int(reader.final_groups(samples).max()) + 1,
        fingerprint=reader.fingerprint(),
        transform=transform,
        labelled=labelled,
        skipped=tuple(reader.skipped),
        notes=tuple(reader.notes),
    )
