"""A tensor as a file keeps it: type, shape and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bnaudit.checkpoints.places import decode, encode


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
