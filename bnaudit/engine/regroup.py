"""Samples of batches that are held, drawn anew: subsets in batches of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.batches import Batch, rebuild_mapping, select_samples


def regrouped(batches: Sequence[Batch], chosen: Sequence[int], size: int) -> list[Batch]:
    """The samples `chosen`, by their numbers over all `batches`, in batches of at most `size`.

    They stay in reading order, all in jackknife group 0. What cannot be joined (images or
    sequences of different lengths) stays in smaller batches.
    """
    wanted = set(chosen)
    parts: list[tuple[Any, int]] = []
    start = 0
    for batch in batches:
        keep = [i for i in range(batch.size) if start + i in wanted]
        start += batch.size
        for first in range(0, len(keep), size):
            some = keep[first : first + size]
            parts.append((select_samples(batch.data, some, batch.size), len(some)))
    made: list[tuple[Any, int]] = []
    for data, samples in parts:
        if made and made[-1][1] + samples <= size:
            try:
                made[-1] = (_joined([made[-1], (data, samples)]), made[-1][1] + samples)
                continue
            except _CannotJoinError:
                pass
        made.append((data, samples))
    return [
        Batch(index, data, torch.zeros(samples, dtype=torch.long, device="cpu"))
        for index, (data, samples) in enumerate(made)
    ]


class _CannotJoinError(Exception):
    """Two parts do not go into one batch."""


def _joined(parts: Sequence[tuple[Any, int]]) -> Any:
    """Parts of one structure, each with its number of samples, as one."""
    items, sizes = [data for data, _ in parts], [samples for _, samples in parts]
    first = items[0]
    if any(type(item) is not type(first) for item in items):
        raise _CannotJoinError
    if isinstance(first, Tensor):
        return _joined_tensors(items, sizes)
    if isinstance(first, Mapping):
        if any(item.keys() != first.keys() for item in items):
            raise _CannotJoinError
        whole = {key: _joined(_field(items, sizes, key)) for key in first}
        return rebuild_mapping(first, whole)
    if isinstance(first, (list, tuple)):
        return _joined_sequences(items, sizes)
    if any(item != first for item in items):
        raise _CannotJoinError
    return first


def _field(items: Sequence[Any], sizes: Sequence[int], key: Any) -> list[tuple[Any, int]]:
    return [(item[key], size) for item, size in zip(items, sizes, strict=True)]


def _joined_tensors(items: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    first = items[0]
    batched = all(t.dim() > 0 and len(t) == n for t, n in zip(items, sizes, strict=True))
    if batched and all(t.shape[1:] == first.shape[1:] and t.dtype == first.dtype for t in items):
        return torch.cat(list(items))
    if not batched and all(torch.equal(first, item) for item in items):
        return first  # the same for every batch
    raise _CannotJoinError


def _joined_sequences(items: Sequence[Any], sizes: Sequence[int]) -> Any:
    first = items[0]
    per_sample = all(len(item) == size for item, size in zip(items, sizes, strict=True))
    tensors = all(
        isinstance(part, Tensor) and part.dim() > 0 and len(part) == size
        for item, size in zip(items, sizes, strict=True)
        for part in item
    )
    if isinstance(first, list) and per_sample and not tensors:
        return [one for item in items for one in item]
    if any(len(item) != len(first) for item in items):
        raise _CannotJoinError
    whole = [_joined(_field(items, sizes, place)) for place in range(len(first))]
    return type(first)(*whole) if hasattr(first, "_fields") else type(first)(whole)
