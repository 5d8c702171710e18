"""A tensor as a file keeps it: type, shape and bytes; from torch and back."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from bnaudit.checkpoints.dtypes import DTYPES, Dtype
from bnaudit.checkpoints.locate import read_bytes
from bnaudit.checkpoints.places import Located, swapped


@dataclass(frozen=True)
class StoredTensor:
    """`data`: the elements in the order of rows, little-endian, whatever the file's order."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    data: bytes

    @staticmethod
    def of(tensor: Tensor, dtype: torch.dtype | None = None) -> StoredTensor:
        """A tensor as it would be stored in `dtype`, by default its own."""
        kept = dtype or tensor.dtype
        return StoredTensor(kept, tuple(tensor.shape), encode(tensor, kept))

    def tensor(self) -> Tensor:
        """The tensor, on the CPU."""
        return decode(self.data, self.dtype, self.shape)


def read_stored(file: BinaryIO, located: Located, names: Iterable[str]) -> dict[str, StoredTensor]:
    """The tensors `names` as they are in the file.

    Raises `CannotPatch` for one that has no place of its own.
    """
    stored = {}
    for name in names:
        place = located.place(name)
        data = read_bytes(file, located, name)
        stored[name] = StoredTensor(torch_dtype(place.dtype), place.shape, data)
    return stored


def encode(value: Tensor, dtype: torch.dtype) -> bytes:
    """The bytes of a tensor in `dtype`, in the order of rows, little-endian."""
    cast = value.detach().to("cpu", dtype).contiguous().reshape(-1)
    raw = np.asarray(cast.view(torch.uint8).numpy())
    return swapped(raw, file_dtype(dtype).word, swap=sys.byteorder == "big").tobytes()


def decode(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The tensor that `encode` made `data` of. Raises `ValueError` where they do not fit."""
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes do not fill shape {shape} of {dtype}")
    if not data:
        return torch.empty(shape, dtype=dtype)
    raw = np.frombuffer(data, np.uint8)
    raw = swapped(raw, file_dtype(dtype).word, swap=sys.byteorder == "big")
    return torch.from_numpy(raw.copy()).view(dtype).reshape(shape)


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """Torch's own object for a type."""
    found = getattr(torch, dtype.name)
    assert isinstance(found, torch.dtype)
    return found


def file_dtype(dtype: torch.dtype) -> Dtype:
    """Ours for a type of torch."""
    return DTYPES[str(dtype).removeprefix("torch.")]
