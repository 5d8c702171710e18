"""What a checkpoint's pickle is read into: containers, references to tensors, inert stubs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bnaudit.checkpoints.dtypes import Dtype
from bnaudit.checkpoints.sealed import Sealed


@dataclass(frozen=True, eq=False)
class StorageRef(Sealed):
    """A mention of a storage: its `key` in the file, device tag, and where a legacy view begins.

    `numel` and `view_offset` are in elements of `dtype`.
    """

    key: str
    dtype: Dtype
    location: str
    numel: int
    view_offset: int


@dataclass(frozen=True, eq=False)
class TensorRef(Sealed):
    """A tensor as its rebuild function describes it; `start` in bytes, `stride` in elements.

    `plain`: the bytes in the storage are the values.
    """

    storage: StorageRef
    dtype: Dtype
    start: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    plain: bool


@dataclass(frozen=True, eq=False)
class Pickled:
    """What a pickle holds: its tree, all tensors in it, and all storages in order of appearance.

    `opaque`: keys of storages that something other than a tensor uses. `kept`: parts of the file
    that hang on tensors, outside the tree.
    """

    root: object
    tensors: tuple[TensorRef, ...]
    storages: tuple[StorageRef, ...]
    opaque: frozenset[str]
    kept: tuple[object, ...]


class Entries(dict[Any, Any]):
    """A dict of the file; what a subclass of dict keeps beside its items is in `state`."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class Stub:
    """An object of the file, of a class that is not looked for: it keeps what it is given."""

    named = "?"

    def __new__(cls, *args: object, **options: object) -> Stub:
        """Keep the arguments, whatever they are."""
        self = object.__new__(cls)
        self.held = [*args, *options.values()]
        self.entries = {}
        self.state = None
        return self

    def __init__(self, *_: object, **__: object) -> None:
        self.held: list[object]
        self.entries: dict[Any, object]
        self.state: object

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def __getitem__(self, key: object) -> object:
        return self.entries[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def items(self) -> Any:
        """The items, where the object is a mapping."""
        return self.entries.items()

    def append(self, value: object) -> None:
        """Keep an element of a list or a set."""
        self.held.append(value)

    add = append

    def __call__(self, *args: object, **options: object) -> Stub:
        """Stand for the result of a call that is not made."""
        return Stub(self, *args, **options)


class OddTensor(Stub):
    """A tensor that is rebuilt in a way of its own: sparse, quantised, of a subclass."""


# Its items are looked into where a key leads through it.
Mapping.register(Stub)


def children(node: object) -> list[object]:
    """What stands directly in a node of the tree; keys of mappings included."""
    if isinstance(node, Stub):
        return [*node.held, *node.entries, *node.entries.values(), node.state]
    if isinstance(node, dict):
        return [*node, *node.values(), getattr(node, "state", None)]
    if isinstance(node, (list, tuple, set, frozenset)):
        return list(node)
    return []
