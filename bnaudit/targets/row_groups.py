"""Keeping what was read of Parquet's row groups: a row is read with all of its row group."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bnaudit.targets.open_files import OpenFiles

MEMORY = 64 * 2**20
"""So many bytes of row groups one process keeps in memory."""

Values = Sequence[bytes | None]
Read = Callable[[], Values]

_ENTRY = 16  # bytes: where a value begins, and how long it is
_NULL = -1


class KeptGroups(ABC):
    """Row groups that were read."""

    @abstractmethod
    def value(self, group: int, row: int, read: Read) -> bytes | None:
        """The value of a row of a group; `read` reads the whole group, where it is not kept."""


class RecentGroups(KeptGroups):
    """The groups that were used last, in the memory of each process."""

    def __init__(self, most: int = MEMORY) -> None:
        self._most = most
        self._groups: OrderedDict[int, Values] = OrderedDict()
        self._bytes = 0

    def value(self, group: int, row: int, read: Read) -> bytes | None:
        """From memory, or read, in the place of those used longest ago."""
        if group not in self._groups:
            self._groups[group] = read()
            self._bytes += _size(self._groups[group])
            while self._bytes > self._most and len(self._groups) > 1:
                self._bytes -= _size(self._groups.popitem(last=False)[1])
        self._groups.move_to_end(group)
        return self._groups[group][row]

    def __getstate__(self) -> dict[str, Any]:
        return {"_most": self._most, "_groups": OrderedDict(), "_bytes": 0}


class UnpackedGroups(KeptGroups):
    """Every group, once it was read, in a file of a temporary folder that all processes share.

    There a row can be read alone. The folder goes with the process that made it. Where its disk
    is full, groups are kept as `RecentGroups`.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bnaudit-parquet-"))
        self._open = OpenFiles()
        self._otherwise = RecentGroups()
        self._full = False
        weakref.finalize(self, _remove, self.folder, os.getpid())

    def value(self, group: int, row: int, read: Read) -> bytes | None:
        """From its file, which is written where it does not exist."""
        file = self.folder / str(group)
        with suppress(OSError):  # most often there is no such file yet
            return self._row(file, row)
        if not self._full:
            values = read()
            try:
                _write(file, values)
            except OSError:  # no space is left, or no folder
                self._full = True
            return values[row]
        return self._otherwise.value(group, row, read)

    def _row(self, file: Path, row: int) -> bytes | None:
        entry = np.frombuffer(self._open.read(file, row * _ENTRY, _ENTRY), np.int64)
        start, size = map(int, entry)
        return None if size == _NULL else self._open.read(file, start, size)


def kept(total: int) -> KeptGroups:
    """How to keep groups of `total` bytes: on disk where memory is too small, and there is room.

    A disk is used by half of what is free on it at most.
    """
    if total <= MEMORY or shutil.disk_usage(tempfile.gettempdir()).free < 2 * total:
        return RecentGroups()
    return UnpackedGroups()


def _write(file: Path, values: Values) -> None:
    """Under a name of its own first: other processes see a file that is whole, or none."""
    sizes = np.array([_NULL if value is None else len(value) for value in values], np.int64)
    ends = np.cumsum(np.maximum(sizes, 0)) + len(values) * _ENTRY
    entries = np.stack([ends - np.maximum(sizes, 0), sizes], axis=1)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as opened:
            opened.write(entries.tobytes())
            opened.writelines(value for value in values if value is not None)
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _size(values: Values) -> int:
    return sum(len(value) for value in values if value is not None)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not one that was forked from it
        shutil.rmtree(folder, ignore_errors=True)
