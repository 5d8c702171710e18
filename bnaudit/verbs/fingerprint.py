"""A hash of what was read: cheap enough to be made of every batch."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnaudit.engine.batches import map_tensors

VALUES = 64
"""Of each sample's tensor so many values are looked at, from all over it; all of a smaller one."""

_GOLDEN = (math.sqrt(5) - 1) / 2

_WAITING = 64
"""So many tensors are looked at together: data on a device are waited for that rarely."""

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the size of an element: every dtype can be looked at so, not every one picked from."""


class Fingerprint:
    """SHA-256 over some values of every sample as the model gets it, in reading order.

    Each tensor of a batch has a hash of its own, which goes on over the batches, so that it does
    not matter how samples whose tensors have their axis first are put into batches. What is no
    tensor does not count.
    """

    def __init__(self) -> None:
        self._hashes: list[Any] = []
        self._shapes: list[object] = []
        self._waiting: list[tuple[int, object, Tensor | None]] = []

    def add(self, data: Any, samples: int) -> None:
        """One batch."""
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        map_tensors(note, data)
        for index, tensor in enumerate(found):
            shape = () if tensor.is_nested else tuple(tensor.shape)  # a nested one has none
            batched = shape[:1] == (samples,)
            shape = shape[1:] if batched else shape
            described = (batched, str(tensor.dtype), shape)
            self._waiting.append((index, described, _values(tensor, batched=batched)))
        if len(self._waiting) >= _WAITING:
            self._settle()

    def hexdigest(self, *facts: object) -> str:
        """Of what was added, together with `facts`. Waits for the device."""
        self._settle()
        digests = [one.hexdigest() for one in self._hashes]
        return hashlib.sha256(repr((digests, facts)).encode()).hexdigest()[:16]

    def _settle(self) -> None:
        for index, described, values in self._waiting:
            if index == len(self._hashes):
                self._hashes.append(hashlib.sha256())
                self._shapes.append(None)
            if self._shapes[index] != described:
                self._shapes[index] = described
                self._hashes[index].update(repr(described).encode())
            if values is not None:
                host = values.cpu().contiguous().flatten().view(torch.uint8)
                self._hashes[index].update(host.numpy().tobytes())
        self._waiting.clear()


def _values(tensor: Tensor, *, batched: bool) -> Tensor | None:
    """Some values of each sample, (samples, ≤ `VALUES`), or of the whole tensor; None of none."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        return None
    if tensor.numel() == 0:
        return None
    one = tensor.detach().resolve_conj().resolve_neg()
    one = one.view(_AS_INTEGERS.get(one.element_size(), one.dtype))
    if not batched:
        one = one[None]
    if one.dim() == 1:
        return one.clone()
    places = _places(tuple(one.shape[1:]))
    index: tuple[slice | Tensor, ...] = (slice(None), *(at.to(one.device) for at in places))
    return one[index]


@lru_cache(maxsize=256)
def _places(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Coordinates of values from all over, whatever the strides: nothing is copied for them.

    By multiples of the golden ratio: even steps would keep to a few columns of an image.
    """
    numel = int(np.prod(shape, dtype=np.int64))
    flat = np.arange(numel) if numel <= VALUES else np.arange(1, VALUES + 1) * _GOLDEN % 1 * numel
    return tuple(torch.from_numpy(axis) for axis in np.unravel_index(flat.astype(np.int64), shape))
