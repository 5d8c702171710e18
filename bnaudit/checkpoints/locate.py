"""The places of a checkpoint's tensors, whatever its format, and what stands in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from bnaudit.checkpoints.formats import Format
from bnaudit.checkpoints.offsets_legacy import locate_in_legacy
from bnaudit.checkpoints.offsets_safetensors import locate_in_safetensors
from bnaudit.checkpoints.offsets_zip import locate_in_zip, read_record
from bnaudit.checkpoints.places import CannotPatch, Located, gather
from bnaudit.checkpoints.stored import StoredTensor

_LOCATE = {
    "zip": locate_in_zip,
    "legacy": locate_in_legacy,
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


def read_stored(file: BinaryIO, located: Located, names: Iterable[str]) -> dict[str, StoredTensor]:
    """The tensors `names` as they are in the file.

    Raises `CannotPatch` for one that has no place of its own.
    """
    stored = {}
    for name in names:
        place = located.place(name)
        start = located.starts[place.record]
        if start is None:
            span = read_record(file, place.record, place.start, place.end)
        else:
            file.seek(start + place.start)
            span = file.read(place.end - place.start)
        stored[name] = StoredTensor(place.dtype, place.shape, gather(located, name, span))
    return stored
