"""What stands in a checkpoint file, read without torch, without code, and no more than is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bnaudit.checkpoints.arrays import check_place, read_array
from bnaudit.checkpoints.file_tensor import CHUNK, FileTensor
from bnaudit.checkpoints.formats import Format, damaged, detect_format, truncated
from bnaudit.checkpoints.messages import one_line
from bnaudit.checkpoints.offsets_legacy import read_legacy
from bnaudit.checkpoints.offsets_pickle import ODD, PickledFile, place_of
from bnaudit.checkpoints.offsets_safetensors import locate_in_safetensors
from bnaudit.checkpoints.offsets_zip import read_zip
from bnaudit.checkpoints.opening import opened
from bnaudit.checkpoints.pickled_modules import is_module, modules_of, state_dict_of
from bnaudit.checkpoints.places import CannotPatch, Located, Place
from bnaudit.checkpoints.search import Tree, Weights, find_weights, walk
from bnaudit.checkpoints.steps import steps_in
from bnaudit.checkpoints.stubs import Entries, OddTensor, Stub, TensorRef
from bnaudit.errors import InputError

__all__ = ["CHUNK", "Contents", "FileTensor", "ModuleFacts", "read_contents"]


@dataclass(frozen=True)
class ModuleFacts:
    """What a pickled module says of itself; None where it does not."""

    kind: str | None = None
    eps: float | None = None
    momentum: float | None = None
    tracks: bool | None = None


@dataclass(frozen=True, eq=False)
class Contents:
    """A checkpoint file: the tensors of its weights, by name in the order of the file.

    `key`: the place of the weights in the file, "" for the top level; `others`: other places that
    would have done. `modules`: of a file that holds a whole pickled model, what its modules say, by
    name. `steps`: how many steps its optimiser made, where the file says so. `bytes`: its size.
    `odd`: names of tensors whose values cannot be read, and why.
    """

    path: Path
    format: Format
    bytes: int
    tensors: Mapping[str, FileTensor]
    key: str = ""
    others: tuple[str, ...] = ()
    modules: Mapping[str, ModuleFacts] = field(default_factory=dict)
    steps: int | None = None
    odd: Mapping[str, str] = field(default_factory=dict)


def read_contents(path: Path, *, key: str | None = None) -> Contents:
    """The weights in the checkpoint at `path`, chosen as `find_weights` says.

    Zip and legacy files of `torch.save` and safetensors, without torch. No code in the file runs
    and no name in it is resolved, so that a whole pickled model is read like any other file. Only
    the description of the tensors is read here, their values when they are asked for.

    Raises `InputError`, one line that says what to do, for every file that cannot be read: missing,
    a folder, empty, truncated, of another kind, without weights.
    """
    path = Path(path)
    with opened(path) as file:
        format_ = detect_format(path, file)
        size = os.fstat(file.fileno()).st_size
        try:
            if format_ == "safetensors":
                return _of_safetensors(path, size, locate_in_safetensors(file, ""), key)
            return _of_pickle(path, format_, size, _PICKLED[format_](file), key)
        except (InputError, OSError):
            raise
        except CannotPatch as reason:
            raise truncated(path, str(reason)) from None
        except Exception as error:  # a damaged pickle can fail in any way
            raise damaged(path, error) from None


def _of_safetensors(path: Path, size: int, located: Located, key: str | None) -> Contents:
    # In the order of the file, so that what is read next lies next.
    places = dict(sorted(located.tensors.items(), key=lambda item: item[1].start))
    odd_ones = {name: OddTensor() for name in located.odd}
    weights = find_weights({**places, **odd_ones}, _TREE, path, key=key)
    tensors, odd = _file_tensors(path, located)
    ordered = {name: tensors[name] for name in places if name in tensors}
    return Contents(path, "safetensors", size, ordered, weights.key, odd=odd)


def _of_pickle(
    path: Path, format_: Format, size: int, file: PickledFile, key: str | None
) -> Contents:
    content = file.pickled.root
    weights = find_weights(content, _TREE, path, key=key)
    tensors, odd = _file_tensors(path, _located(file, weights))
    module = walk(content, weights.key)
    return Contents(
        path=path,
        format=format_,
        bytes=size,
        tensors=tensors,
        key=one_line(weights.key),
        others=tuple(map(one_line, weights.others)),
        modules=dict(_facts(module)),
        steps=steps_in(content, lambda tensor: _number(path, file, tensor)),
        odd=odd,
    )


def _located(file: PickledFile, weights: Weights) -> Located:
    places, odd = {}, {}
    for name, value in weights.entries.items():
        if isinstance(name, str) and isinstance(value, TensorRef) and value.plain:
            places[name] = place_of(value)
        elif isinstance(name, str) and _TREE.is_tensor(value):
            odd[name] = ODD
    return Located(places, (), odd, file.starts, file.sizes, file.big_endian)


def _file_tensors(path: Path, located: Located) -> tuple[dict[str, FileTensor], dict[str, str]]:
    """The tensors of a file that can be read, and why the others cannot."""
    tensors: dict[str, FileTensor] = {}
    odd = dict(located.odd)
    for name, place in located.tensors.items():
        check_place(path, located, name)
        if not name.isprintable():  # line breaks, terminal escapes: it is never to reach a screen
            odd[one_line(name)] = "has a name that cannot be shown"
        elif place.dtype.numpy is None:
            odd[name] = f"has the type {place.dtype}"
        else:
            read = partial(read_array, path, located, name)
            tensors[name] = FileTensor(place.dtype.name, place.shape, read)
    return tensors, odd


def _number(path: Path, file: PickledFile, tensor: TensorRef) -> float:
    located = Located({"step": place_of(tensor)}, (), {}, file.starts, file.sizes, file.big_endian)
    return float(read_array(path, located, "step").item())


def _facts(module: object) -> Iterator[tuple[str, ModuleFacts]]:
    for found in modules_of(module):
        tracks = found.state.get("track_running_stats")
        yield (
            found.name,
            ModuleFacts(
                kind=one_line(found.kind),
                eps=_float(found.state.get("eps")),
                momentum=_float(found.state.get("momentum")),
                tracks=tracks if isinstance(tracks, bool) else None,
            ),
        )


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value is not True else None


def _dimensions(value: object) -> int | None:
    if isinstance(value, TensorRef):
        return len(value.size)
    if isinstance(value, Place):
        return len(value.shape)
    return 1 if isinstance(value, OddTensor) else None


def _kind(value: object) -> str:
    if isinstance(value, Stub):
        return value.named.rpartition(".")[2]
    if isinstance(value, TensorRef):
        return "Tensor"
    return "dict" if isinstance(value, Entries) else type(value).__name__


_TREE = Tree(
    dimensions=_dimensions,
    is_module=is_module,
    entries_of=lambda module, _: state_dict_of(module),
    kind=_kind,
)
_PICKLED = {"zip": read_zip, "legacy": read_legacy}
