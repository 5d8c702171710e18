"""New values into a copy of a checkpoint: in place where they can be, else saved anew; verified."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from bnaudit.checkpoints.copying import patched_copy, sha256_of
from bnaudit.checkpoints.formats import Format, detect_format
from bnaudit.checkpoints.locate import locate
from bnaudit.checkpoints.messages import input_error, listed
from bnaudit.checkpoints.places import CannotPatch, Located
from bnaudit.checkpoints.read import read_checkpoint
from bnaudit.checkpoints.resave import resave, stored_in
from bnaudit.checkpoints.stored import StoredTensor, read_stored
from bnaudit.errors import InputError

_FORMATS = {"zip": "a zip archive", "legacy": "the format before torch 1.6"}


@dataclass(frozen=True)
class Written:
    """What was written. `before`: the old values, None for a tensor that was not in the file.

    `in_place`: every byte but those of the tensors (and an archive's checksums) is as it was;
    where it is not, `notes` say what changed. `source_sha256`, `source_bytes`: of the original.
    """

    format: Format
    in_place: bool
    notes: tuple[str, ...]
    before: Mapping[str, StoredTensor | None]
    source_sha256: str
    source_bytes: int
    sha256: str


def write_copy(
    source: Path,
    copy: Path,
    values: Mapping[str, Tensor],
    *,
    key: str,
    trust_pickle: bool = False,
    removed: Collection[str] = (),
) -> Written:
    """Write `source` to `copy`, which is no other file's name yet, with `values` in it.

    `values`: by their names in the state dict at `key`; cast to the types in the file. `removed`:
    names that are taken out, which saves the file anew. What was written is read back and compared.
    Raises `InputError` where the file cannot be read, or a value has the wrong shape.
    """
    with source.open("rb") as file:
        format_ = detect_format(source, file)
        try:
            if removed:
                raise CannotPatch(f"{listed(removed)} is taken out")
            located = locate(file, format_, key)
            before = read_stored(file, located, values)
            new = _cast(values, before, source)
            copied = patched_copy(file, format_, located, new, copy)
        except CannotPatch as reason:
            return _save_anew(
                source, copy, values, key, removed, str(reason), trust_pickle=trust_pickle
            )
        size = os.fstat(file.fileno()).st_size
    notes: tuple[str, ...] = ()
    if copied.sha256 is None:
        notes = (
            "its archive is compressed, so it was packed anew: every entry in it is as it was, "
            "but for the statistics",
        )
    with copy.open("rb") as file:
        sha_read = sha256_of(file)
        _check(copy, copied.sha256 in (None, sha_read))
        _check(copy, read_stored(file, _located_again(file, format_, key, copy), new) == new)
    in_place = copied.sha256 is not None
    return Written(format_, in_place, notes, before, copied.source_sha256, size, sha_read)


def _cast(
    values: Mapping[str, Tensor], before: Mapping[str, StoredTensor | None], path: Path
) -> dict[str, StoredTensor]:
    cast = {}
    for name, value in values.items():
        old = before.get(name)
        if old is not None and tuple(value.shape) != old.shape:
            found = tuple(value.shape)
            raise input_error(path, f"{name} has shape {old.shape} there, not {found}")
        stored = StoredTensor.of(value, torch.float32 if old is None else old.dtype)
        if bool(value.isfinite().all()) and not bool(stored.tensor().isfinite().all()):
            raise input_error(
                path,
                f"the new {name} does not fit {stored.dtype} (largest value "
                f"{value.abs().max().item():.3g}); save the weights in float32 first",
            )
        cast[name] = stored
    return cast


def _located_again(file: BinaryIO, format_: Format, key: str, path: Path) -> Located:
    try:
        return locate(file, format_, key)
    except CannotPatch:
        raise _unverified(path) from None


def _save_anew(
    source: Path,
    copy: Path,
    values: Mapping[str, Tensor],
    key: str,
    removed: Collection[str],
    reason: str,
    *,
    trust_pickle: bool,
) -> Written:
    try:
        checkpoint = read_checkpoint(source, trust_pickle=trust_pickle)
    except InputError as error:
        why = str(error).removeprefix(f"{source}: ")
        what = f"cannot be patched in place ({reason}), and to be saved anew it has to be loaded"
        raise input_error(source, f"{what}: {why}") from None
    old = stored_in(checkpoint, key, values)
    new = _cast(values, old, source)
    notes = [f"saved anew, not patched: {reason}", *_changes(source, checkpoint.format, key)]
    resave(checkpoint, key, new, copy, removed=removed)
    again = read_checkpoint(copy, trust_pickle=trust_pickle)
    _check(copy, stored_in(again, key, new) == new)
    return Written(
        format=checkpoint.format,
        in_place=False,
        notes=tuple(notes),
        before={name: old.get(name) for name in values},
        source_sha256=checkpoint.sha256,
        source_bytes=source.stat().st_size,
        sha256=again.sha256,
    )


def _changes(source: Path, format_: Format, key: str) -> list[str]:
    """What saving a file anew changes, in words."""
    if format_ == "safetensors":
        return ["names, values and metadata are as they were; the order in the file may differ"]
    notes = [
        f"it is {_FORMATS[format_]}, as it was, of torch {torch.__version__}; tensors have their "
        "names and values, other objects are saved as they were loaded (plain data stay, special "
        "kinds of dicts, paths and NumPy arrays become plain ones)"
    ]
    with source.open("rb") as file:
        try:
            devices = locate(file, format_, key).devices
        except CannotPatch:
            return [*notes, "device tags, if there were any, became cpu"]
    if devices:
        notes.append(f"the device tags {listed(devices)} became cpu: load it with map_location")
    return notes


def _check(path: Path, as_written: bool) -> None:
    if not as_written:
        raise _unverified(path)


def _unverified(path: Path) -> OSError:
    return OSError(None, f"what was read back from {path.parent} is not what was written")
