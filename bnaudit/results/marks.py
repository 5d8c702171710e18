"""A yes or no for each sample, small enough for a document."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 100_000_000
"""More samples than anyone marks; a document that names more is damaged."""


@dataclass(frozen=True)
class Marks:
    """Of each of `count` samples, in reading order, whether something holds.

    `bits`: eight samples a byte, the first one in the highest bit, as base64; a kilobyte holds
    6,000 samples. Raises `ValueError` where they are not base64, or not as many as `count` needs.
    """

    count: int
    bits: str

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MOST:
            raise ValueError(f"{self.count} samples cannot be marked")
        bits = len(self._bytes())
        if bits != -(-self.count // 8):
            raise ValueError(f"{bits} bytes of bits do not fit {self.count} samples")

    @classmethod
    def of(cls, holds: NDArray[np.bool_]) -> Marks:
        """From an array (n,)."""
        return cls(len(holds), base64.b64encode(np.packbits(holds).tobytes()).decode("ascii"))

    def array(self) -> NDArray[np.bool_]:
        """Whether it holds, (n,)."""
        packed = np.frombuffer(self._bytes(), np.uint8)
        return np.unpackbits(packed, count=self.count).astype(np.bool_)

    def _bytes(self) -> bytes:
        try:
            return base64.b64decode(self.bits, validate=True)
        except ValueError as error:
            raise ValueError("the bits are not base64") from error
