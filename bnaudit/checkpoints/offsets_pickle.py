"""From a checkpoint's pickle to the places of its tensors, for both formats of torch.save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from bnaudit.checkpoints.layout import walk
from bnaudit.checkpoints.places import CannotPatch, Located, Place, word_of
from bnaudit.checkpoints.stubs import Pickled, Stub, TensorRef, children

_ODD = "is rebuilt in a way of its own (sparse, quantised, a tensor subclass)"


def locate_tensors(
    pickled: Pickled,
    key: str,
    starts: Mapping[str, int | None],
    sizes: Mapping[str, int],
    *,
    big_endian: bool = False,
) -> Located:
    """The tensors of the state dict at `key`, and what else uses their storages.

    `starts`, `sizes`: of the storages' records, by storage key. Raises `CannotPatch` where there
    is no state dict at `key`.
    """
    # Two names may stand for one slot (a module used twice), and one tensor in several slots.
    slots = {name: (holder, leaf) for name, holder, leaf in _named_slots(walk(pickled.root, key))}
    if not slots:
        raise CannotPatch(f"there is no state dict at {key!r} that can be read as data")
    named = {name: holder[leaf] for name, (holder, leaf) in slots.items()}
    tensors = {n: v for n, v in named.items() if isinstance(v, TensorRef) and v.plain}
    ours: dict[int, set[tuple[int, Any]]] = {}
    for name, tensor in tensors.items():
        holder, leaf = slots[name]
        ours.setdefault(id(tensor), set()).add((id(holder), leaf))
    mentions = _count_mentions(pickled)
    others = [t for t in pickled.tensors if mentions.get(id(t)) != len(ours.get(id(t), ()))]
    whole = [
        Place(record, torch.uint8, 0, (sizes.get(record, 0),), (1,), 1) for record in pickled.opaque
    ]
    return Located(
        tensors={name: _place(tensor) for name, tensor in tensors.items()},
        others=(*map(_place, others), *whole),
        odd=dict.fromkeys(named.keys() - tensors.keys(), _ODD),
        starts=starts,
        sizes=sizes,
        big_endian=big_endian,
        devices=tuple(sorted({s.location for s in pickled.storages} - {"cpu"})),
    )


def _place(tensor: TensorRef) -> Place:
    # torch swaps whole storages, so the dtype of the storage decides.
    word = word_of(tensor.storage.dtype)
    key = tensor.storage.key
    return Place(key, tensor.dtype, tensor.start, tensor.size, tensor.stride, word)


def _named_slots(node: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    """Name, container and key of what stands in a state dict, or in a pickled module."""
    state = node.state if isinstance(node, Stub) else None
    if isinstance(state, dict) and isinstance(state.get("_modules"), Mapping) and depth < 100:
        for group in ("_parameters", "_buffers"):
            entries = state.get(group)
            if isinstance(entries, Mapping):
                yield from ((f"{prefix}{name}", entries, name) for name in entries)
        for name, module in state["_modules"].items():
            yield from _named_slots(module, f"{prefix}{name}.", depth + 1)
    elif isinstance(node, Mapping) and not prefix:
        yield from ((name, node, name) for name in node if isinstance(name, str))


def _count_mentions(pickled: Pickled) -> dict[int, int]:
    """How often each tensor (by id) stands in the file; a container used twice counts once."""
    counts: dict[int, int] = {}
    seen: set[int] = set()
    waiting: list[object] = [pickled.root, *pickled.kept]
    while waiting:
        node = waiting.pop()
        if isinstance(node, TensorRef):
            counts[id(node)] = counts.get(id(node), 0) + 1
        elif not isinstance(node, (str, bytes, int, float)) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend(children(node))
    return counts
