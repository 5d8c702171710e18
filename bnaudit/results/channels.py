"""The per-channel arrays of an Audit, which are too many for its JSON document."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np

from bnaudit.errors import InputError
from bnaudit.regular_files import regular_file

LARGEST = 2**29
"""Bytes of all arrays: of ten million channels."""


@dataclass(frozen=True)
class ChannelTable:
    """Per-channel arrays of all audited layers, one after another.

    `names` (L,) and `offsets` (L + 1,): layer i owns the entries offsets[i] to offsets[i+1] of the
    other arrays, each (ΣC,) float64: the estimated and the expected (biased) statistics, γ, and
    the shift d of each channel (NaN where undefined).
    """

    names: np.ndarray
    offsets: np.ndarray
    estimated_mean: np.ndarray
    estimated_var: np.ndarray
    expected_mean: np.ndarray
    expected_var: np.ndarray
    gamma: np.ndarray
    shift: np.ndarray

    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012 - read by pydantic

    def layer(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one layer, each (C,), by name of the array."""
        index = self.names.tolist().index(name)
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return {key: getattr(self, key)[part] for key in _CHANNEL_ARRAYS}

    def save(self, path: Path) -> None:
        """Write as a compressed `.npz` with the field names as keys."""
        arrays = {key: getattr(self, key) for key in _ARRAYS}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> ChannelTable:
        """Read what `save` wrote.

        Raises `InputError` for anything else, before it takes more memory than it should.
        """
        try:
            with regular_file(path) as file:
                _check_sizes(file)
                with np.load(file, allow_pickle=False) as arrays:
                    table = cls(**{name: arrays[name] for name in _ARRAYS})
            table._check()
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise _damaged(path) from error
        except (RuntimeError, MemoryError, SyntaxError) as error:
            raise _damaged(path) from error  # a zip of another kind, or with a password; a header
        return table

    def _check(self) -> None:
        """That the arrays fit each other. Raises `ValueError` otherwise."""
        names, offsets, arrays = self.names, self.offsets, self._channel_arrays()
        if any(array.ndim != 1 for array in (names, offsets, *arrays)):
            raise ValueError("not all are one-dimensional")
        if names.dtype.kind != "U" or offsets.dtype.kind not in "iu":
            raise ValueError("names or offsets are of another type")
        if any(array.dtype != np.float64 for array in arrays):
            raise ValueError("not all are float64")
        whole = [0, *offsets.tolist()][-1]
        if len(offsets) != len(names) + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError("the offsets do not fit the names")
        if any(len(array) != whole for array in arrays):
            raise ValueError("the offsets do not fit the arrays")

    def _channel_arrays(self) -> list[np.ndarray]:
        return [getattr(self, name) for name in _CHANNEL_ARRAYS]


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path}: not the per-channel arrays of an Audit, or damaged: measure anew, or remove it"
    )


def _check_sizes(file: BinaryIO) -> None:
    """That the arrays are as large as they say, and in all no larger than `LARGEST`."""
    with ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        wanted = [members[f"{name}.npy"] for name in _ARRAYS]
        if sum(info.file_size for info in wanted) > LARGEST:
            raise ValueError("too large")
        for info in wanted:
            with archive.open(info) as member:
                _check_header(member, info.file_size)
    file.seek(0)


def _check_header(member: IO[bytes], size: int) -> None:
    version = np.lib.format.read_magic(member)
    if version != (1, 0):  # the others are for structured types
        raise ValueError("not as it was saved")
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    # An array is made from its header before its content is read.
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError("shorter than its header says")


_CHANNEL_ARRAYS = (
    "estimated_mean",
    "estimated_var",
    "expected_mean",
    "expected_var",
    "gamma",
    "shift",
)

_ARRAYS = ("names", "offsets", *_CHANNEL_ARRAYS)
