"""The samples of `leakage`, held so that they can be put into one batch after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bnaudit.engine.batches import Batch, labels_of, select_samples
from bnaudit.engine.ranks import ALONE
from bnaudit.engine.regroup import regrouped
from bnaudit.errors import InputError
from bnaudit.stats.arrangements import Ints
from bnaudit.targets.messages import told
from bnaudit.targets.samples import source_of
from bnaudit.verbs.samples import MapReader, Reader
from bnaudit.verbs.sources import HostRoom

COPIES = 3
"""Of the samples are in memory at the worst moment, while batches are put together."""

By = Callable[[Any], Iterable[Any]]
"""What groups the samples of a batch: one value of each."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Samples in memory, as one batch.

    `order`: their numbers in the order of the data set's files, or of the loader. `folders`: of the
    files that they come from, where these are known. `labels` (n,) on the CPU.
    """

    data: Any
    samples: int
    order: Ints
    labels: Ints | None = None
    folders: tuple[str, ...] | None = None
    groups: dict[str, Ints] = field(default_factory=dict)

    def batch(self, chosen: Ints, index: int = 0) -> Batch:
        """These samples, in this order, as a batch."""
        data = select_samples(self.data, chosen.tolist(), self.samples)
        return Batch(index, data, torch.zeros(len(chosen), dtype=torch.long, device="cpu"))


def read_pool(reader: Reader, named: dict[str, By], progress: Callable[[int], None]) -> Pool:
    """All samples of a reader, with the groups that the functions in `named` give them.

    Raises `InputError` where they do not fit into memory, or cannot be put into one batch.
    """
    batches: list[Batch] = []
    room = HostRoom(ALONE)
    values: dict[str, list[str]] = {name: [] for name in named}
    for batch in reader:
        room.take((batch.data,) * COPIES, batch.size)
        batches.append(batch)
        for name, function in named.items():
            values[name] += _values(name, function, batch)
        progress(batch.size)
    samples = sum(batch.size for batch in batches)
    if not samples:
        raise InputError("the data gave no batch: there are no batch mates to look at")
    whole = _together(batches)
    if len(whole) > 1:
        raise InputError(
            "samples of different batches cannot be put into one (their shapes differ): give "
            "--transform, or pad them alike"
        )
    labels = labels_of(whole[0].data)
    numbers = reader.order.numpy() if isinstance(reader, MapReader) else None
    if numbers is not None and len(numbers) != samples:
        numbers = None  # the data's own collate function makes several of one
    return Pool(
        whole[0].data,
        samples,
        np.arange(samples) if numbers is None else np.argsort(numbers, kind="stable"),
        None if labels is None or len(labels) != samples else labels.cpu().numpy(),
        _folders(reader, numbers),
        {name: numbered(given) for name, given in values.items()},
    )


def _together(batches: list[Batch]) -> list[Batch]:
    """All samples as one batch, in order; several where they cannot be joined.

    Two by two, so that each sample is copied a few times and not once a batch.
    """
    while len(batches) > 1:
        pairs = [batches[i : i + 2] for i in range(0, len(batches), 2)]
        sizes = [sum(batch.size for batch in pair) for pair in pairs]
        merged = [
            one
            for pair, size in zip(pairs, sizes, strict=True)
            for one in regrouped(pair, range(size), size)
        ]
        if len(merged) == len(batches):
            break
        batches = merged
    return batches


def numbered(values: Sequence[str]) -> Ints:
    """Groups as numbers, in the order of their names."""
    return np.asarray(np.unique(np.asarray(values), return_inverse=True)[1])


def _values(name: str, function: By, batch: Batch) -> list[str]:
    try:
        found = function(batch.data)
        values = found.tolist() if isinstance(found, Tensor | np.ndarray) else list(found)
    except Exception as error:
        raise InputError(
            f"--by {name} raised {told(error)}; it is called with a batch, and gives the group of "
            "each of its samples"
        ) from error
    if len(values) != batch.size:
        raise InputError(
            f"--by {name} gave {len(values)} values for a batch of {batch.size} samples: give one "
            "for each"
        )
    return [str(value) for value in values]


def _folders(reader: Reader, numbers: Ints | None) -> tuple[str, ...] | None:
    """The folder of each sample's file; None where samples are not from files."""
    if numbers is None or not isinstance(reader, MapReader):
        return None
    dataset: Dataset[Any] = reader.dataset
    sources = [source_of(dataset, int(number)) for number in numbers]
    if any(source == f"sample {number}" for source, number in zip(sources, numbers, strict=True)):
        return None
    return tuple(str(PurePath(source).parent) for source in sources)
