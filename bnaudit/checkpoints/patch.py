"""Recalibrated statistics into a copy of a checkpoint, with what it takes to undo that."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bnaudit.atomic import temporary_beside
from bnaudit.checkpoints.copying import sha256_of
from bnaudit.checkpoints.messages import first_line, input_error
from bnaudit.checkpoints.publish import publish
from bnaudit.checkpoints.sidecar import FileInfo, Sidecar, read_sidecar, sidecar_of
from bnaudit.checkpoints.target import check_names, check_target
from bnaudit.checkpoints.writing import write_copy
from bnaudit.errors import InputError


@dataclass(frozen=True)
class PatchReport:
    """What was written where.

    `in_place`: every byte of the source but those of the tensors (and an archive's checksums) is in
    `target`; where it is not, `notes` say what that changes. `sha256`: of `target`.
    """

    target: Path
    sidecar: Path
    in_place: bool
    notes: tuple[str, ...]
    sha256: str


def patch_checkpoint(
    source: Path,
    target: Path,
    values: Mapping[str, Tensor],
    *,
    key: str,
    provenance: Mapping[str, Any],
    trust_pickle: bool = False,
    overwrite: bool = False,
    source_sha256: str | None = None,
) -> PatchReport:
    """Write a copy of the checkpoint `source` to `target`, with `values` in it, and a sidecar.

    `values`: by their names in the state dict at `key` ("" is the top level), in their shapes
    there; cast to the types there. Written as they are: for `running_var` that is the population's
    biased variance, which makes inference exact. `provenance`: kept in the sidecar, any JSON.
    `source_sha256`: what `source` is expected to be. `trust_pickle`: see `read_checkpoint`; needed
    only for a file that has to be saved anew and holds objects.

    Only the tensors' bytes are replaced (and the checksums of an archive), wherever they have a
    place of their own in the file; elsewhere its content is saved anew. What is written is read
    back before it gets its name; at any failure or interrupt, `target` and its sidecar stay as they
    were, and `source` is only read.

    Raises `InputError` for what `check_target` refuses, for values that do not fit the file, and
    where the file cannot be read or the copy not be written.
    """
    source, target = Path(source), Path(target)
    if not values:
        raise input_error(source, "there are no new statistics to write into a copy of it")
    for name, value in values.items():
        if not bool(value.isfinite().all()):
            raise input_error(source, f"the new {name} is not finite, and is not written")
    check_target(source, target, overwrite=overwrite)
    sidecar = sidecar_of(target)
    with writing(target), temporary_beside(target) as copy:
        written = write_copy(source, copy, values, key=key, trust_pickle=trust_pickle)
        if source_sha256 not in (None, written.source_sha256):
            raise input_error(source, "was changed since it was loaded; start again")
        document = Sidecar(
            source=FileInfo(source.name, written.source_sha256, written.source_bytes),
            target=FileInfo(target.name, written.sha256, copy.stat().st_size),
            key=key,
            in_place=written.in_place,
            before=written.before,
            provenance=provenance,
        )
        json = document.to_json(previous=_sidecar_there(target))
        check_names(source, target, overwrite=overwrite)  # it may have appeared meanwhile
        publish(copy, target, sidecar, json)
    return PatchReport(target, sidecar, written.in_place, written.notes, written.sha256)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns what the system says about writing `target` into an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        remedy = "give another name with -o"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = f"free some space, or {remedy}"
        raise input_error(
            target, f"cannot be written ({reason}); no file was changed; {remedy}"
        ) from None


def _sidecar_there(target: Path) -> Sidecar | None:
    """The sidecar that fits the file at `target` now; None where there is no such pair."""
    try:
        with target.open("rb") as file:
            return read_sidecar(target, sha256_of(file))
    except (OSError, InputError):
        return None
