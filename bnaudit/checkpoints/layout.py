"""Where in a checkpoint the weights stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bnaudit.checkpoints.messages import first_line, input_error, listed, shortened
from bnaudit.checkpoints.prefixes import is_averaged
from bnaudit.checkpoints.read import Checkpoint

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


@dataclass(frozen=True, eq=False)
class StateDict:
    """The weights found in a checkpoint.

    `tensors`: by the names in the file, without entries that are not tensors. `key`: the dotted
    path of the place in the checkpoint, "" for the top level. `others`: paths of the other places
    that would have done, in the order of preference. `metadata`: the module versions that
    `nn.Module.state_dict` keeps beside the tensors, by module name; None where the file has none.
    """

    tensors: dict[str, Tensor]
    key: str
    others: tuple[str, ...]
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class _Place:
    key: str
    entries: Mapping[Any, Any]
    order: int


def find_state_dict(checkpoint: Checkpoint, *, key: str | None = None) -> StateDict:
    """The state dict in a checkpoint: a mapping most of whose entries are named tensors.

    The top level wins where it is one. Else mappings, lists and pickled modules are searched three
    keys deep, optimizers, schedulers and generators' states left out, and chosen in this order:
    plain weights before averaged ones (a key with a word such as `ema`, `swa`, `teacher`); then
    the usual names (`state_dict`, `model_state_dict`, `model_state`, `model`, `module`, `net`,
    `network`, `weights`, `params`, `parameters`) before others; then the shallower; then the order
    in the file. `key`, a dotted path, overrides all that; "" is the top level.

    Raises `InputError` where there is no state dict, or none at `key`.
    """
    content, path = checkpoint.content, checkpoint.path
    found = [_Place(k, m, i) for i, (k, m) in enumerate(_places(content, "", _DEPTH, path))]
    found.sort(key=_preference)
    if key is not None:
        chosen = _place_at(content, key, path)
        if chosen is None:
            raise input_error(path, f"no state dict at {key!r}; {_what_else(content, found)}")
    elif found:
        chosen = found[0]
    else:
        raise input_error(path, f"no state dict found; {_what_else(content, found)}")
    metadata = getattr(chosen.entries, "_metadata", None)
    return StateDict(
        tensors={
            name: value.detach()
            for name, value in chosen.entries.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        },
        key=chosen.key,
        others=tuple(place.key for place in found if place.key != chosen.key),
        metadata=metadata if isinstance(metadata, Mapping) else None,
    )


def _places(content: object, key: str, depth: int, path: Path) -> Iterator[tuple[str, Any]]:
    """Every state dict in `content`, with its path; none inside another."""
    if isinstance(content, nn.Module):
        yield key, _entries_of(content, path)
    elif isinstance(content, Mapping) and _is_state_dict(content):
        yield key, content
    elif depth > 0:
        for name, value in _children(content):
            if not _NEVER.search(name.lower()) and not _is_optimizer(value):
                yield from _places(value, f"{key}.{name}" if key else name, depth - 1, path)


def _children(content: object) -> Iterator[tuple[str, object]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            # What a module keeps as extra state is its own affair, and can be anything.
            if isinstance(name, str) and not name.endswith("_extra_state"):
                yield name, value
    elif isinstance(content, (list, tuple)):
        yield from ((str(i), value) for i, value in enumerate(content[:_LIST_ITEMS]))


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    named = dict(_children(content))
    tensors = [value for value in named.values() if isinstance(value, Tensor)]
    # Losses and counters are tensors too, but single numbers.
    if 2 * len(tensors) <= len(named) or all(value.dim() == 0 for value in tensors):
        return False
    # A few tensors around the weights proper: the weights are further in.
    return not any(
        isinstance(value, nn.Module) or (isinstance(value, Mapping) and _is_state_dict(value))
        for value in named.values()
    )


def _is_optimizer(content: object) -> bool:
    return isinstance(content, Mapping) and "param_groups" in content


def _preference(place: _Place) -> tuple[bool, int, int, int]:
    parts = place.key.split(".")
    # The most telling part counts: "ema.state_dict" is averaged, "model.encoder" has a usual name.
    usual = [_USUAL_NAMES.index(part) for part in parts if part in _USUAL_NAMES]
    rank = min(usual, default=len(_USUAL_NAMES))
    return is_averaged(place.key), rank, len(parts), place.order


def _place_at(content: object, key: str, path: Path) -> _Place | None:
    """The mapping with tensors at a dotted path; the keys on the way may contain dots."""
    value = walk(content, key)
    if isinstance(value, nn.Module):
        return _Place(key, _entries_of(value, path), 0)
    if isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values()):
        return _Place(key, value, 0)
    return None


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


def _entries_of(module: nn.Module, path: Path) -> Mapping[str, Any]:
    try:
        return module.state_dict()
    except Exception as error:  # a module of another version may lack what this one needs
        what = f"{type(module).__name__} cannot give its weights ({first_line(error)})"
        raise input_error(
            path, f"{what}; save its state_dict() with the library it needs"
        ) from None


def _what_else(content: object, found: list[_Place]) -> str:
    """What the checkpoint does hold, for an error."""
    if found:
        places = [
            f"{place.key or 'the top level (an empty key)'} ({len(place.entries)} entries)"
            for place in found
        ]
        return f"give --checkpoint-key one of: {listed(places)}"
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}, where a dict with named tensors is needed"
    if not content:
        return "it holds an empty dict"
    keys = [f"{shortened(str(name), 40)} ({type(v).__name__})" for name, v in content.items()]
    hint = "name the place with --checkpoint-key, where one of them holds the weights"
    return f"its top-level keys are {listed(keys, 8)}; {hint}"
