"""A pickled module, read as data: its tensors by their names, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bnaudit.checkpoints.stubs import Stub

# Modules nested deeper than this hold themselves.
_DEEPEST = 100


@dataclass(frozen=True, eq=False)
class PickledModule:
    """A module by its dotted name, "" for the outermost; `state` are its attributes."""

    name: str
    kind: str
    state: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Slot:
    """Where something that has a name stands: `holder[leaf]`."""

    name: str
    holder: Any
    leaf: str


def is_module(node: object) -> bool:
    """Whether a node of a pickle's tree is a module of torch."""
    state = node.state if isinstance(node, Stub) else None
    return isinstance(state, dict) and isinstance(state.get("_modules"), Mapping)


def modules_of(node: object, prefix: str = "", depth: int = 0) -> Iterator[PickledModule]:
    """The module at `node` and all inside it, each before its own; nothing for no module."""
    if not isinstance(node, Stub) or not is_module(node) or depth >= _DEEPEST:
        return
    state: Any = node.state
    yield PickledModule(prefix.removesuffix("."), node.named.rpartition(".")[2], state)
    for name, module in state["_modules"].items():
        yield from modules_of(module, f"{prefix}{name}.", depth + 1)


def slots_of(node: object) -> Iterator[Slot]:
    """What stands in the module at `node` under the names of its state dict.

    In the order of `state_dict()`, and with the buffers that it leaves out (`kept_slots`).
    """
    for module in modules_of(node):
        prefix = f"{module.name}." if module.name else ""
        for group in ("_parameters", "_buffers"):
            entries = module.state.get(group)
            if isinstance(entries, Mapping):
                yield from (Slot(f"{prefix}{leaf}", entries, leaf) for leaf in entries)


def state_dict_of(node: object) -> dict[str, Any]:
    """What `state_dict()` of the module at `node` would hold, extra state left out."""
    left_out = {
        f"{module.name}.{leaf}" if module.name else leaf
        for module in modules_of(node)
        for leaf in _names(module.state.get("_non_persistent_buffers_set"))
    }
    return {
        slot.name: slot.holder[slot.leaf]
        for slot in slots_of(node)
        if slot.name not in left_out and slot.holder[slot.leaf] is not None
    }


def _names(value: object) -> list[str]:
    """The strings in a set of the file, which an older pickle holds as a stub."""
    found = value if isinstance(value, (set, frozenset, list, tuple)) else []
    if isinstance(value, Stub):
        found = [item for held in value.held for item in (held if isinstance(held, list) else [])]
    return [item for item in found if isinstance(item, str)]
