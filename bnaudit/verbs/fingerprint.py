"""A hash of what was read: cheap enough to be made of every batch, mergeable over ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.batches import map_tensors
from bnaudit.engine.ranks import Ranks
from bnaudit.stats.scattered import scattered_values

_WAITING = 64
"""So many tensors are looked at together: data on a device are waited for that rarely."""

_MODULUS = 2**128


class Fingerprint:
    """A hash over some values of every sample as the model gets it, with its place in the order.

    The sum of the hashes of all samples' tensors: it does not matter who reads which of them, nor
    how samples whose tensors have their axis first are put into batches. What is no tensor does
    not count.
    """

    def __init__(self) -> None:
        self._sum = 0
        self._waiting: list[tuple[str, list[int], Tensor | None]] = []

    def add(self, data: Any, positions: Sequence[int]) -> None:
        """One batch; `positions`: the places of its samples in the reading order."""
        samples = len(positions)
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        map_tensors(note, data)
        for index, tensor in enumerate(found):
            shape = () if tensor.is_nested else tuple(tensor.shape)  # a nested one has none
            batched = shape[:1] == (samples,)
            shape = shape[1:] if batched else shape
            places = list(positions) if batched else [positions[0] if samples else 0]
            described = repr((index, batched, str(tensor.dtype), shape))
            self._waiting.append((described, places, scattered_values(tensor, batched=batched)))
        if len(self._waiting) >= _WAITING:
            self._settle()

    def hexdigest(self, ranks: Ranks, *facts: object) -> str:
        """Of what all ranks added, together with `facts`. Waits for the device."""
        self._settle()
        total = sum(ranks.gather(self._sum)) % _MODULUS
        return hashlib.sha256(repr((total, facts)).encode()).hexdigest()[:16]

    def _settle(self) -> None:
        for described, places, values in self._waiting:
            rows = [b""] * len(places)
            if values is not None:
                host = values.cpu().contiguous()
                rows = [row.tobytes() for row in host.flatten(1).view(torch.uint8).numpy()]
            for place, row in zip(places, rows, strict=True):
                digest = hashlib.blake2b(f"{described} {place} ".encode() + row, digest_size=16)
                self._sum = (self._sum + int.from_bytes(digest.digest())) % _MODULUS
        self._waiting.clear()
