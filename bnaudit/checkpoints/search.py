"""Where in a checkpoint's content the weights stand, whether its objects are loaded or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnaudit.checkpoints.messages import input_error, listed, shortened
from bnaudit.checkpoints.prefixes import is_averaged

# How deep a state dict may be nested, in keys; and how many items of a list are looked into.
_DEPTH = 3
_LIST_ITEMS = 16

# Names that training scripts give a state dict, the plainest first.
_USUAL_NAMES = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "parameters",
)
# Words in a key whose tensors are never weights.
_NEVER = re.compile(
    r"optimi[zs]er|(^|_)optims?(_|$)|^opt(_|$)|_opt$|schedul|(^|_)scaler|(^|_)rng(_|$)"
    r"|random_state|callbacks?$|^amp$"
)


@dataclass(frozen=True)
class Tree:
    """How a content is read.

    `dimensions`: how many a tensor has, None for what is no tensor. `is_module`: whether something
    is a pickled module. `entries_of`: a module's state dict. `kind`: the name of an object's type.
    """

    dimensions: Callable[[object], int | None]
    is_module: Callable[[object], bool]
    entries_of: Callable[[Any, Path], Mapping[str, Any]]
    kind: Callable[[object], str]

    def is_tensor(self, value: object) -> bool:
        """Whether it is a tensor."""
        return self.dimensions(value) is not None


@dataclass(frozen=True, eq=False)
class Weights:
    """A state dict that was found: its entries, its key, and the keys of the others."""

    entries: Mapping[Any, Any]
    key: str
    others: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Place:
    key: str
    entries: Mapping[Any, Any]
    order: int


def find_weights(content: object, tree: Tree, path: Path, *, key: str | None = None) -> Weights:
    """The state dict in a content: a mapping most of whose entries are named tensors.

    The top level wins where it is one. Else mappings, lists and pickled modules are searched three
    keys deep, optimizers, schedulers and generators' states left out, and chosen in this order:
    plain weights before averaged ones (a key with a word such as `ema`, `swa`, `teacher`); then
    the usual names (`state_dict`, `model_state_dict`, `model_state`, `model`, `module`, `net`,
    `network`, `weights`, `params`, `parameters`) before others; then the shallower; then the order
    in the file. `key`, a dotted path, overrides all that; "" is the top level.

    Raises `InputError` about `path` where there is no state dict, or none at `key`.
    """
    places = _places(content, "", _DEPTH, tree, path)
    found = [_Place(k, m, i) for i, (k, m) in enumerate(places)]
    found.sort(key=_preference)
    if key is not None:
        chosen = _place_at(content, key, tree, path)
        if chosen is None:
            what = _what_else(content, found, tree)
            raise input_error(path, f"no state dict at {key!r}; {what}")
    elif found:
        chosen = found[0]
    else:
        raise input_error(path, f"no state dict found; {_what_else(content, found, tree)}")
    others = tuple(place.key for place in found if place.key != chosen.key)
    return Weights(chosen.entries, chosen.key, others)


def walk(content: object, key: str) -> object:
    """What stands at a dotted path in mappings and lists; keys on the way may contain dots.

    None where nothing does.
    """
    if not key:
        return content
    items: list[tuple[Any, object]] = []
    if isinstance(content, Mapping):
        items = list(content.items())
    elif isinstance(content, (list, tuple)):
        items = list(enumerate(content))
    for name, value in items:
        if str(name) == key:
            return value
        if key.startswith(f"{name}."):
            found = walk(value, key[len(str(name)) + 1 :])
            if found is not None:
                return found
    return None


def _places(
    content: object, key: str, depth: int, tree: Tree, path: Path
) -> Iterator[tuple[str, Any]]:
    """Every state dict in `content`, with its path; none inside another."""
    if tree.is_module(content):
        yield key, tree.entries_of(content, path)
    elif isinstance(content, Mapping) and _is_state_dict(content, tree):
        yield key, content
    elif depth > 0:
        for name, value in _children(content):
            if not _NEVER.search(name.lower()) and not is_optimizer(value):
                yield from _places(value, f"{key}.{name}" if key else name, depth - 1, tree, path)


def _children(content: object) -> Iterator[tuple[str, object]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            # What a module keeps as extra state is its own affair, and can be anything.
            if isinstance(name, str) and not name.endswith("_extra_state"):
                yield name, value
    elif isinstance(content, (list, tuple)):
        yield from ((str(i), value) for i, value in enumerate(content[:_LIST_ITEMS]))


def _is_state_dict(content: Mapping[Any, Any], tree: Tree) -> bool:
    named = dict(_children(content))
    dimensions = [tree.dimensions(value) for value in named.values()]
    tensors = [count for count in dimensions if count is not None]
    # Losses and counters are tensors too, but single numbers.
    if 2 * len(tensors) <= len(named) or not any(tensors):
        return False
    # A few tensors around the weights proper: the weights are further in.
    return not any(
        tree.is_module(value) or (isinstance(value, Mapping) and _is_state_dict(value, tree))
        for value in named.values()
    )


def is_optimizer(content: object) -> bool:
    """Whether something is the state dict of an optimizer."""
    return isinstance(content, Mapping) and "param_groups" in content


def _preference(place: _Place) -> tuple[bool, int, int, int]:
    parts = place.key.split(".")
    # The most telling part counts: "ema.state_dict" is averaged, "model.encoder" has a usual name.
    usual = [_USUAL_NAMES.index(part) for part in parts if part in _USUAL_NAMES]
    rank = min(usual, default=len(_USUAL_NAMES))
    return is_averaged(place.key), rank, len(parts), place.order


def _place_at(content: object, key: str, tree: Tree, path: Path) -> _Place | None:
    """The mapping with tensors at a dotted path; the keys on the way may contain dots."""
    value = walk(content, key)
    if tree.is_module(value):
        return _Place(key, tree.entries_of(value, path), 0)
    if isinstance(value, Mapping) and any(tree.is_tensor(entry) for _, entry in value.items()):
        return _Place(key, value, 0)
    return None


def _what_else(content: object, found: list[_Place], tree: Tree) -> str:
    """What the checkpoint does hold, for an error."""
    if found:
        places = [
            f"{place.key or 'the top level (an empty key)'} ({len(place.entries)} entries)"
            for place in found
        ]
        return f"give --checkpoint-key one of: {listed(places)}"
    # An object that is not rebuilt counts as a mapping, for the sake of those that are one.
    if not isinstance(content, Mapping) or not (content or isinstance(content, dict)):
        return f"it holds a {tree.kind(content)}, where a dict with named tensors is needed"
    if not content:
        return "it holds an empty dict"
    keys = [f"{shortened(str(name), 40)} ({tree.kind(v)})" for name, v in content.items()]
    hint = "name the place with --checkpoint-key, where one of them holds the weights"
    return f"its top-level keys are {listed(keys, 8)}; {hint}"
