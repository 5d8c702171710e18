"""Where tensors lie in a file, and which of its bytes new values change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnaudit.checkpoints.dtypes import Dtype

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Positions = np.ndarray[Any, np.dtype[np.int64]]


class CannotPatch(Exception):  # noqa: N818 - a finding, which leads to another way of writing
    """Why the bytes of a tensor cannot be replaced where they are, in words."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where a tensor lies: in the record `record`, from byte `start`, `stride` in elements.

    `word`: how many bytes are in the file's byte order together.
    """

    record: str
    dtype: Dtype
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    word: int

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """The byte of the record after the last one that it uses."""
        if not self.numel:
            return self.start
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return self.start + (last + 1) * self.dtype.itemsize

    @property
    def repeats(self) -> bool:
        """Whether it surely shows some of its bytes several times."""
        return self.numel * self.dtype.itemsize > self.end - self.start

    @property
    def dense(self) -> bool:
        """Whether it uses every byte from `start` to `end`, so far as that is told by counting."""
        return self.numel * self.dtype.itemsize == self.end - self.start

    def positions(self) -> Positions:
        """The byte of the record at which each byte of the tensor lies, in the order of rows."""
        at: Positions = np.array([self.start], dtype=np.int64)
        size = self.dtype.itemsize
        for n, step in zip((*self.shape, size), (*(size * s for s in self.stride), 1), strict=True):
            at = at[..., None] + np.arange(n, dtype=np.int64) * step
        return at.reshape(-1)


@dataclass(frozen=True, eq=False)
class Located:
    """The tensors of a file.

    `tensors`: those of the state dict, by name. `others`: everything else in the file that uses
    the same records. `odd`: names in the state dict that have no place of their own, and why.
    `starts`: the byte of the file at which a record begins, None where the record is compressed.
    `big_endian`: the byte order of the records. `devices`: the device tags other than the CPU's.
    """

    tensors: Mapping[str, Place]
    others: tuple[Place, ...]
    odd: Mapping[str, str]
    starts: Mapping[str, int | None]
    sizes: Mapping[str, int]
    big_endian: bool = False
    devices: tuple[str, ...] = ()

    def place(self, name: str) -> Place:
        """The place of a tensor; raises `CannotPatch` where it has none in its record."""
        place = self.tensors.get(name)
        if place is None:
            raise CannotPatch(f"{name} {self.odd.get(name, 'is not in the file')}")
        if place.record not in self.starts or not 0 <= place.start <= self.sizes[place.record]:
            raise CannotPatch(f"{name} has no data in the file")
        if place.end > self.sizes[place.record]:
            raise CannotPatch(f"{name} has less data in the file than its shape says")
        if place.repeats:
            raise CannotPatch(f"{name} is a few numbers shown several times (expanded)")
        return place


@dataclass(frozen=True)
class Run:
    """New bytes for a record, from its byte `start`."""

    start: int
    data: bytes


def plan(located: Located, values: Mapping[str, bytes]) -> dict[str, list[Run]]:
    """The runs of bytes that change, by record. `values`: as of `encode`, in each place's dtype.

    Raises `CannotPatch` where a tensor has no place of its own in the file, or shares it with one
    that does not get the same values.
    """
    names_in: dict[str, list[str]] = {}
    for name in values:
        names_in.setdefault(located.place(name).record, []).append(name)
    neighbours: dict[str, list[Place]] = {record: [] for record in names_in}
    unchanged = (place for name, place in located.tensors.items() if name not in values)
    for place in (*unchanged, *located.others):
        if place.record in neighbours:
            neighbours[place.record].append(place)
    runs = {}
    for record, names in names_in.items():
        at, data = _changes(located, {name: values[name] for name in names})
        if any(_touches(place, at) for place in neighbours[record]):
            raise CannotPatch(f"{names[0]} shares its memory with another tensor in the file")
        runs[record] = _runs(at, data)
    return runs


def gather(located: Located, name: str, span: bytes) -> bytes:
    """The bytes of a tensor as `encode` gives them; `span`: its record from `start` to `end`."""
    place = located.place(name)
    raw = np.frombuffer(span, np.uint8)[place.positions() - place.start]
    return swapped(raw, place.word, swap=located.big_endian).tobytes()


def _changes(located: Located, values: Mapping[str, bytes]) -> tuple[Positions, Bytes]:
    """Where bytes change in one record, in ascending order, and to what."""
    places = [located.place(name) for name in values]
    at = np.concatenate([place.positions() for place in places])
    data = np.concatenate(
        [
            swapped(np.frombuffer(new, np.uint8), place.word, swap=located.big_endian)
            for place, new in zip(places, values.values(), strict=True)
        ]
    )
    order = np.argsort(at, kind="stable")
    at, data = at[order], data[order]
    again = np.flatnonzero(at[1:] == at[:-1]) + 1
    if np.any(data[again] != data[again - 1]):
        raise CannotPatch(f"{', '.join(values)} share memory and differ")
    return np.delete(at, again), np.delete(data, again)


def _touches(place: Place, at: Positions) -> bool:
    """Whether a tensor uses one of the bytes `at`, which ascend."""
    inside = at[np.searchsorted(at, place.start) : np.searchsorted(at, place.end)]
    if not inside.size:
        return False
    return place.dense or place.repeats or bool(np.isin(inside, place.positions()).any())


def _runs(at: Positions, data: Bytes) -> list[Run]:
    cuts = np.flatnonzero(np.diff(at) != 1) + 1
    pieces = zip(np.split(at, cuts), np.split(data, cuts), strict=True)
    return [Run(int(where[0]), piece.tobytes()) for where, piece in pieces if where.size]


def swapped(raw: Bytes, word: int, *, swap: bool) -> Bytes:
    """`raw` with each word of so many bytes turned round, if `swap`."""
    return raw.reshape(-1, word)[:, ::-1].reshape(-1) if swap and word > 1 else raw
