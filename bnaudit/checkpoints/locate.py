"""The places of a checkpoint's tensors, whatever its format, and what stands there."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from bnaudit.checkpoints.formats import Format
from bnaudit.checkpoints.offsets_legacy import read_legacy
from bnaudit.checkpoints.offsets_pickle import locate_tensors
from bnaudit.checkpoints.offsets_safetensors import locate_in_safetensors
from bnaudit.checkpoints.offsets_zip import read_record, read_zip
from bnaudit.checkpoints.places import CannotPatch, Located, gather

_LOCATE: dict[Format, Callable[[BinaryIO, str], Located]] = {
    "zip": lambda file, key: locate_tensors(read_zip(file), key),
    "legacy": lambda file, key: locate_tensors(read_legacy(file), key),
    "safetensors": locate_in_safetensors,
}


def locate(file: BinaryIO, format_: Format, key: str) -> Located:
    """Where the tensors of the state dict at `key` lie. Nothing from the file runs.

    Raises `CannotPatch` where that cannot be told.
    """
    try:
        return _LOCATE[format_](file, key)
    except (CannotPatch, OSError):
        raise
    except Exception as error:  # a pickle that torch can read may still be too odd for this
        raise CannotPatch(
            f"where its tensors lie cannot be told ({type(error).__name__})"
        ) from None


def read_bytes(file: BinaryIO, located: Located, name: str) -> bytes:
    """The elements of a tensor in the order of rows, little-endian.

    Raises `CannotPatch` for one that has no place of its own.
    """
    place = located.place(name)
    start = located.starts[place.record]
    if start is None:
        span = read_record(file, place.record, place.start, place.end)
    else:
        file.seek(start + place.start)
        span = file.read(place.end - place.start)
    return gather(located, name, span)
