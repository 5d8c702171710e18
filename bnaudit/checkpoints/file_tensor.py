"""A tensor in a file, whose values are read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 22
"""Elements of a tensor that are compared or counted at once."""

BFLOAT16 = "bfloat16"


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor in a file: its type (as NumPy names it, or "bfloat16") and its shape.

    `stored()`: its elements as they lie in the file, mapped where they are large, so that they cost
    no memory until they are used; those of bfloat16 as the uint16 that they are. Raises
    `InputError` where the file cannot be read any more.
    """

    dtype: str
    shape: tuple[int, ...]
    stored: Callable[[], NDArray[Any]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> FileTensor:
        """One that is in memory."""
        return cls(str(array.dtype), array.shape, lambda: array)

    @property
    def elements(self) -> int:
        """How many it has."""
        return math.prod(self.shape)

    def values(self) -> NDArray[Any]:
        """The values: bfloat16 as float32, everything else in its own type."""
        return self._widened(self.stored())

    def chunks(self) -> Iterator[NDArray[Any]]:
        """The values, flat and in the order of rows, at most `CHUNK` at once; one for no values."""
        stored = self.stored()
        # Only what lies in the order of rows can be looked at flat without a copy of all of it.
        flat: Any = stored.reshape(-1) if stored.flags.c_contiguous else stored.flat
        for start in range(0, max(stored.size, 1), CHUNK):
            yield self._widened(flat[start : start + CHUNK])

    def _widened(self, stored: NDArray[Any]) -> NDArray[Any]:
        if self.dtype != BFLOAT16 or stored.dtype != np.uint16:
            return stored
        return (stored.astype(np.uint32) << 16).view(np.float32)
