"""What a batch is to the engine, and how its parts are found, moved and cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnaudit.errors import InputError

LABEL_KEYS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Batch:
    """One batch as the loader made it, with the jackknife group of each of its samples.

    `groups` (size,) int64; `index` counts batches from 0.
    """

    index: int
    data: Any
    groups: Tensor

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.groups)


def batch_size(data: Any) -> int:
    """The number of samples of a batch: the first dimension of its first input.

    A list of per-image tensors inside the batch counts by its length.
    """
    first = data
    if isinstance(data, (tuple, list)) and data:
        first = data[0]
    elif isinstance(data, Mapping) and data:
        first = next((v for v in data.values() if isinstance(v, Tensor)), None)
    if isinstance(first, Tensor) and first.dim() > 0:
        return first.shape[0]
    if isinstance(first, (list, tuple)):
        return len(first)
    raise InputError(
        f"cannot tell how many samples a batch of type {type(data).__name__} holds: give batches "
        "that are tensors, (inputs, labels) pairs, or dicts of tensors"
    )


def labels_of(data: Any) -> Tensor | None:
    """Integer class labels (N,) of a batch, None where it has none.

    The second element of a pair, or one of the usual keys of a dict.
    """
    found = None
    if isinstance(data, (tuple, list)) and len(data) >= 2:
        found = data[1]
    elif isinstance(data, Mapping):
        found = next((data[key] for key in LABEL_KEYS if key in data), None)
    if not isinstance(found, Tensor) or found.is_floating_point() or found.dtype == torch.bool:
        return None
    if found.dim() == 2 and found.shape[1] == 1:
        found = found.squeeze(1)
    return found.long() if found.dim() == 1 else None


def map_tensors(function: Callable[[Tensor], Tensor], data: Any) -> Any:
    """The same nest of lists, tuples and dicts with `function` applied to every tensor."""
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, Mapping):
        return _rebuild_mapping(data, {k: map_tensors(function, v) for k, v in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):  # a namedtuple
        return type(data)(*(map_tensors(function, item) for item in data))
    if isinstance(data, (list, tuple)):
        return type(data)(map_tensors(function, item) for item in data)
    return data


def _rebuild_mapping(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    try:
        return type(original)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def to_device(data: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Every tensor on `device`; images (4-D) in channels_last where asked."""

    def move(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device, non_blocking=True)
        if channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    return map_tensors(move, data)


def slice_batch(data: Any, start: int, stop: int, size: int) -> Any:
    """Samples `start` to `stop` of a batch of `size` samples.

    Tensors whose first dimension is `size` are cut, and so are lists of `size` per-sample items
    (images of different sizes); everything else is passed through.
    """
    if start == 0 and stop == size:
        return data
    if isinstance(data, Tensor):
        return data[start:stop] if data.dim() > 0 and data.shape[0] == size else data
    if isinstance(data, list) and len(data) == size and not _all_batched(data, size):
        return data[start:stop]
    if isinstance(data, Mapping):
        cut = {key: slice_batch(value, start, stop, size) for key, value in data.items()}
        return _rebuild_mapping(data, cut)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(slice_batch(item, start, stop, size) for item in data))
    if isinstance(data, (list, tuple)):
        return type(data)(slice_batch(item, start, stop, size) for item in data)
    return data


def _all_batched(items: Sequence[Any], size: int) -> bool:
    return all(isinstance(i, Tensor) and i.dim() > 0 and i.shape[0] == size for i in items)


def describe(data: Any) -> str:
    """The shapes of a batch, for messages: `[float32 (32, 3, 224, 224), int64 (32,)]`."""
    if isinstance(data, Tensor):
        return f"{str(data.dtype).removeprefix('torch.')} {tuple(data.shape)}"
    if isinstance(data, Mapping):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in list(data.items())[:4]) + "}"
    if isinstance(data, (list, tuple)):
        inner = ", ".join(describe(item) for item in data[:4])
        return f"[{inner}{', …' if len(data) > 4 else ''}]"
    return type(data).__name__
