"""Where tensors lie in safetensors files."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from bnaudit.checkpoints.dtypes import DTYPES
from bnaudit.checkpoints.places import CannotPatch, Located, Place

# The format's names of the types that a byte or more makes up.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
# All data are one record.
_RECORD = "data"


def locate_in_safetensors(file: BinaryIO, key: str) -> Located:
    """The tensors of the file; there is one state dict, at `key` "".

    A header tells type, shape and offsets of each tensor; the data follow, little-endian.
    """
    if key:
        raise CannotPatch(f"a safetensors file has no {key!r}")
    header = read_header(file)
    begin = file.tell()
    places: dict[str, Place] = {}
    odd: dict[str, str] = {}
    for name, entry in header.items():
        shape = tuple(entry["shape"])
        dtype = DTYPES.get(_DTYPES.get(entry["dtype"], ""))
        if dtype is None:
            odd[name] = f"has the type {entry['dtype']}"
            continue
        start = entry["data_offsets"][0]
        place = Place(_RECORD, dtype, start, shape, _strides(shape), dtype.word)
        if place.end != entry["data_offsets"][1]:
            odd[name] = "has data that do not fill its shape"
            continue
        places[name] = place
    ends = [entry["data_offsets"][1] for entry in header.values()]
    return Located(places, (), odd, {_RECORD: begin}, {_RECORD: max(ends, default=0)})


def read_header(file: BinaryIO) -> dict[str, dict[str, Any]]:
    """The header without its metadata; the file is left where the data begin."""
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.insert(0, step)
        step *= n
    return tuple(strides)
