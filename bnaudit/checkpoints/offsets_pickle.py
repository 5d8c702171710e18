"""From a checkpoint's pickle to the places of its tensors, for both formats of torch.save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bnaudit.checkpoints.dtypes import BYTES
from bnaudit.checkpoints.pickled_modules import Slot, is_module, slots_of
from bnaudit.checkpoints.places import CannotPatch, Located, Place
from bnaudit.checkpoints.search import walk
from bnaudit.checkpoints.stubs import Pickled, TensorRef, children

ODD = "is rebuilt in a way of its own (sparse, quantised, a tensor subclass)"


@dataclass(frozen=True, eq=False)
class PickledFile:
    """A file of torch.save: its pickle, and where the records of its storages lie.

    `starts`, `sizes`: the byte of the file at which a record begins (None where it is compressed)
    and its bytes, by storage key. `big_endian`: the byte order of the records.
    """

    pickled: Pickled
    starts: Mapping[str, int | None]
    sizes: Mapping[str, int]
    big_endian: bool = False


def locate_tensors(file: PickledFile, key: str) -> Located:
    """The tensors of the state dict at `key`, and what else uses their storages.

    Raises `CannotPatch` where there is no state dict at `key`.
    """
    pickled, sizes = file.pickled, file.sizes
    # Two names may stand for one slot (a module used twice), and one tensor in several slots.
    slots = {slot.name: slot for slot in _named_slots(walk(pickled.root, key))}
    if not slots:
        raise CannotPatch(f"there is no state dict at {key!r} that can be read as data")
    named = {name: slot.holder[slot.leaf] for name, slot in slots.items()}
    tensors = {n: v for n, v in named.items() if isinstance(v, TensorRef) and v.plain}
    ours: dict[int, set[tuple[int, str]]] = {}
    for name, tensor in tensors.items():
        slot = slots[name]
        ours.setdefault(id(tensor), set()).add((id(slot.holder), slot.leaf))
    mentions = _count_mentions(pickled)
    others = [t for t in pickled.tensors if mentions.get(id(t)) != len(ours.get(id(t), ()))]
    whole = [Place(record, BYTES, 0, (sizes.get(record, 0),), (1,), 1) for record in pickled.opaque]
    return Located(
        tensors={name: place_of(tensor) for name, tensor in tensors.items()},
        others=(*map(place_of, others), *whole),
        odd=dict.fromkeys(named.keys() - tensors.keys(), ODD),
        starts=file.starts,
        sizes=sizes,
        big_endian=file.big_endian,
        devices=tuple(sorted({s.location for s in pickled.storages} - {"cpu"})),
    )


def place_of(tensor: TensorRef) -> Place:
    """Where a tensor lies."""
    # torch swaps whole storages, so the dtype of the storage decides.
    word = tensor.storage.dtype.word
    key = tensor.storage.key
    return Place(key, tensor.dtype, tensor.start, tensor.size, tensor.stride, word)


def _named_slots(node: object) -> Iterator[Slot]:
    """What has a name in a state dict, or in a pickled module."""
    if is_module(node):
        yield from slots_of(node)
    elif isinstance(node, Mapping):
        yield from (Slot(name, node, name) for name in node if isinstance(name, str))


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
