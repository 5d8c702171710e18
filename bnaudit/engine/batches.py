"""What a batch is to the engine, and how its parts are found, moved and cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bnaudit.engine.graphs import cut_graphs, edges_in, is_batch_of_graphs, is_graph, map_graph
from bnaudit.engine.stopwatch import doing
from bnaudit.errors import InputError

MOST_CHANNELS = 4
"""Of an image in a list of two; more are taken for the samples of a batch."""

LABEL_KEYS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Batch:
    """One batch as the loader made it, with the jackknife group of each of its samples.

    `groups` (size,) int64; `index` counts batches from 0, over all ranks; `first`: how many
    samples, the unreadable ones too, come before it in the reading order.
    """

    index: int
    data: Any
    groups: Tensor
    first: int = 0

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.groups)


def batch_size(data: Any) -> int:
    """The number of samples of a batch: the first dimension of its first input.

    A list of per-image tensors, as the batch or inside it, counts by its length, and a batch of
    torch-geometric by its graphs.
    """
    if is_image_list(data):
        return len(data)
    first = data
    if isinstance(data, (tuple, list)) and data:
        first = data[0]
    elif isinstance(data, Mapping) and data:
        first = next((v for v in data.values() if isinstance(v, Tensor)), None)
    if isinstance(first, Tensor) and first.dim() > 0:
        return first.shape[0]
    if isinstance(first, (list, tuple)):
        return len(first)
    if is_batch_of_graphs(first):
        return int(first.num_graphs)
    raise InputError(
        f"cannot tell how many samples a batch of type {type(data).__name__} holds: give batches "
        "that are tensors, (inputs, labels) pairs, or dicts of tensors"
    )


def default_forward(model: nn.Module, batch: Any) -> Any:
    """What nearly every model takes.

    A tensor or a list of images goes in as it is; of a tuple or list the first item; of a mapping
    what is left without its labels (`LABEL_KEYS`): a single value as it is, several as keywords.
    InputError: anything else.
    """
    if isinstance(batch, Tensor) or is_image_list(batch):
        return model(batch)
    if isinstance(batch, tuple | list) and batch:
        return model(batch[0])
    inputs = {}
    if isinstance(batch, Mapping):
        inputs = {key: value for key, value in batch.items() if key not in LABEL_KEYS}
    if len(inputs) == 1:
        return model(next(iter(inputs.values())))
    if inputs:
        return model(**inputs)
    raise InputError(
        f"a batch is {describe(batch)}: say what goes into the model with --forward "
        "path/file.py:fn, called as fn(model, batch)"
    )


def is_image_list(data: Any) -> bool:
    """Whether a batch is a bare list of images (C, H, W), and not an (inputs, labels) pair."""
    if not isinstance(data, list) or len(data) < 2:
        return False
    if not all(isinstance(i, Tensor) and i.dim() == 3 and i.is_floating_point() for i in data):
        return False
    if len(data) > 2:
        return True
    first, second = (image.shape for image in data)
    # Two batches of waves (N, C, L), what is heard and what is to be told apart, are no images.
    flat = 1 in (first[1], second[1])
    return first[0] == second[0] <= MOST_CHANNELS and first != second and not flat


def labels_of(data: Any) -> Tensor | None:
    """Integer class labels (N,) of a batch, None where it has none.

    The second element of a pair, or one of the usual keys of a dict.
    """
    found = None
    if isinstance(data, (tuple, list)) and len(data) >= 2:
        found = data[1]
    elif isinstance(data, Mapping):
        found = next((data[key] for key in LABEL_KEYS if key in data), None)
    elif is_graph(data):
        found = getattr(data, "y", None)
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
        return rebuild_mapping(data, {k: map_tensors(function, v) for k, v in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):  # a namedtuple
        return type(data)(*(map_tensors(function, item) for item in data))
    if isinstance(data, (list, tuple)):
        return type(data)(map_tensors(function, item) for item in data)
    if is_graph(data):
        return map_graph(function, data)
    return data


def rebuild_mapping(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """A mapping of the same type with other items; a dict where it cannot be made so."""
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
    return _cut(data, size, lambda x: x[start:stop], lambda items: items[start:stop])


def select_samples(data: Any, keep: Sequence[int], size: int) -> Any:
    """The samples `keep` of a batch of `size`, found in it as `slice_batch` finds them."""
    return _cut(data, size, lambda x: x[list(keep)], lambda items: [items[i] for i in keep])


def _cut(
    data: Any,
    size: int,
    tensor: Callable[[Tensor], Tensor],
    items: Callable[[list[Any]], list[Any]],
) -> Any:
    if isinstance(data, Tensor):
        return tensor(data) if data.dim() > 0 and data.shape[0] == size else data
    if isinstance(data, list) and len(data) == size and not _all_batched(data, size):
        return items(data)
    if isinstance(data, Mapping):
        cut = {key: _cut(value, size, tensor, items) for key, value in data.items()}
        return rebuild_mapping(data, cut)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_cut(item, size, tensor, items) for item in data))
    if isinstance(data, (list, tuple)):
        return type(data)(_cut(item, size, tensor, items) for item in data)
    if is_batch_of_graphs(data) and data.num_graphs == size:
        return cut_graphs(items, data)
    return data


def data_bytes(data: Any) -> int:
    """What the tensors of a batch take."""
    sizes: list[int] = []

    def add(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    map_tensors(add, data)
    return sum(sizes)


def content_hashes(batch: Batch) -> list[bytes]:
    """A hash of the input of each sample, as the model gets it; labels do not count.

    Where an input has floating-point tensors, these alone, and of a graph its edges: numbers of
    samples would tell apart what is the same.
    """
    data = batch.data
    if isinstance(data, (tuple, list)) and data and not is_image_list(data):
        data = data[0]
    elif isinstance(data, Mapping):
        data = {key: value for key, value in data.items() if key not in LABEL_KEYS}
    with doing("data"):
        data = map_tensors(lambda tensor: tensor.detach().cpu(), data)
        return [_hash(slice_batch(data, i, i + 1, batch.size)) for i in range(batch.size)]


def _hash(sample: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, sample)
    floating = [tensor for tensor in found if tensor.is_floating_point()]
    for tensor in [*floating, *edges_in(sample)] or found:
        host = tensor.detach().cpu().contiguous()
        digest.update(str((host.dtype, tuple(host.shape))).encode())
        digest.update(host.flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()


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
