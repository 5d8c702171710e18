"""The data of one part of the work: what a caller gives, split in two, and what was read of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bnaudit.engine.batches import batch_size, data_bytes
from bnaudit.engine.memory import SHARE, free_memory
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.errors import InputError
from bnaudit.results import DataInfo
from bnaudit.targets.data import chosen_samples
from bnaudit.targets.samples import Readable
from bnaudit.verbs.samples import MapReader, Reader
from bnaudit.verbs.streams import StreamReader, told


def reader_of(
    data: Dataset[Any] | Iterable[Any],
    batch_size: int,
    samples: int | None,
    seed: int,
    workers: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Reader:
    """A map-style data set is drawn from in an order of ours; anything else is read as it comes.

    On several ranks a DataLoader is its data set where it goes through all of it: what its sampler
    deals to a rank is padded, or differs from rank to rank.
    """
    pin_memory = device.type == "cuda"
    if isinstance(data, DataLoader) and ranks.size > 1:
        whole = chosen_samples(data)
        if whole is not None:
            return MapReader(
                Readable(whole),
                data.batch_size or batch_size,
                samples,
                seed,
                data.num_workers,
                data.collate_fn,
                pin_memory=pin_memory,
                ranks=ranks,
            )
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return MapReader(
            data, batch_size, samples, seed, workers, pin_memory=pin_memory, ranks=ranks
        )
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InputError(
            f"data is {data!r}: give a Dataset, a DataLoader or an iterable of batches"
        )
    return StreamReader(data, samples, ranks=ranks)


_CPU = torch.device("cpu")


class HostRoom:
    """How much more of a loader the host can hold."""

    def __init__(self, ranks: Ranks) -> None:
        self._left = SHARE * free_memory(_CPU) / ranks.sharing(_CPU)
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
        mine = replace(reader, part=(0.0, cut), samples=reader.asked, notes=[])
        theirs = replace(reader, part=(cut, 1.0), samples=others, notes=[])
        return mine, theirs
    assert isinstance(reader, StreamReader)
    parts: tuple[list[Any], list[Any]] = ([], [])
    counts, wanted, room = [0, 0], [reader.samples, others], HostRoom(reader.ranks)
    for index, data in enumerate(told(reader.batches, reader.source)):
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
        StreamReader(parts[0], reader.samples, size, source, ranks=reader.ranks),
        StreamReader(parts[1], others, size, source, ranks=reader.ranks),
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
    """What was read, once it has been read: `samples` in all. On every rank."""
    return DataInfo(
        source=source,
        samples=samples,
        available=reader.available,
        batch_size=reader.ranks.first_of(reader.pass_batch_size),
        seed=reader.order_seed,
        groups=int(reader.final_groups(samples).max()) + 1,
        fingerprint=reader.fingerprint(),
        transform=transform,
        labelled=labelled,
        skipped=reader.skipped(),
        notes=tuple(reader.notes),
    )
