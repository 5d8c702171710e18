"""The values of a tensor in a file as an array, wherever and however they lie there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnaudit.checkpoints.formats import truncated
from bnaudit.checkpoints.messages import input_error
from bnaudit.checkpoints.offsets_zip import read_record
from bnaudit.checkpoints.opening import opened
from bnaudit.checkpoints.places import Bytes, CannotPatch, Located

# Below this many bytes, reading is faster than mapping.
_MAPPED = 1 << 18


def check_place(path: Path, located: Located, name: str) -> None:
    """Raise `InputError` where the file has not all the data that a tensor shows."""
    place = located.tensors[name]
    size = located.sizes.get(place.record, -1)
    if not 0 <= place.start <= size or place.end > size:
        raise truncated(path, f"{name} has less data in the file than its shape says")


def read_array(path: Path, located: Located, name: str) -> NDArray[Any]:
    """The elements of a tensor, in its shape and type, this machine's byte order; read-only.

    bfloat16 comes as uint16. Raises `InputError` where the file cannot be read, and for a type that
    has no counterpart in NumPy.
    """
    check_place(path, located, name)
    place = located.tensors[name]
    if place.dtype.numpy is None:
        raise input_error(path, f"{name} has the type {place.dtype}, whose values are not read")
    if not place.numel:
        return np.empty(place.shape, place.dtype.numpy)
    raw = _bytes(path, located, place.record, place.start, place.end)
    # A storage without a type is bytes (a word is one), which torch never turns round.
    turned = located.big_endian and place.word == place.dtype.word
    dtype = np.dtype(f"{'>' if turned else '<'}{place.dtype.numpy}")
    strides = [step * place.dtype.itemsize for step in place.stride]
    array: NDArray[Any] = np.ndarray(place.shape, dtype, raw.data, 0, strides)
    array.flags.writeable = False
    return array.astype(dtype.newbyteorder("="), copy=False)


def _bytes(path: Path, located: Located, record: str, low: int, high: int) -> Bytes:
    """The bytes of a record from `low` to `high`."""
    start = located.starts[record]
    with opened(path) as file:
        if start is None:
            try:
                return np.frombuffer(read_record(file, record, low, high), np.uint8)
            except CannotPatch as reason:
                raise truncated(path, str(reason)) from None
        if high - low >= _MAPPED:
            return np.memmap(file, np.uint8, "r", start + low, (high - low,))
        file.seek(start + low)
        data = file.read(high - low)
    if len(data) != high - low:
        raise truncated(path, "it became shorter while it was read")
    return np.frombuffer(data, np.uint8)
