"""The old statistics back into a copy of a recalibrated checkpoint, from its sidecar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bnaudit.atomic import flush_file, temporary_beside
from bnaudit.checkpoints.copying import sha256_of
from bnaudit.checkpoints.messages import input_error
from bnaudit.checkpoints.patch import writing
from bnaudit.checkpoints.publish import flush_name, take_name
from bnaudit.checkpoints.sidecar import Sidecar, read_sidecar
from bnaudit.checkpoints.target import check_names, check_target
from bnaudit.checkpoints.writing import write_copy

_RECALIBRATED, _RESTORED = ".recalibrated", ".restored"


@dataclass(frozen=True)
class RestoreReport:
    """What was restored from where. `source`: the name of the file that was recalibrated.

    `identical`: whether `target` is, byte for byte, that file (by its SHA-256). `tensors`: how many
    have their old values. `notes`: what is different where it is not identical. `sha256`: of
    `target`.
    """

    path: Path
    target: Path
    source: str
    identical: bool
    tensors: int
    notes: tuple[str, ...]
    sha256: str


def restore_checkpoint(
    path: Path,
    target: Path | None = None,
    *,
    overwrite: bool = False,
    trust_pickle: bool = False,
) -> RestoreReport:
    """Write a copy of the recalibrated checkpoint `path` to `target`, with its old statistics.

    The default target is `default_target(path)`. `trust_pickle`: needed for a file that had to be
    saved anew with it. Raises `InputError` for what `check_target` refuses, where there is no
    sidecar, or where the file has changed since the sidecar was written. Never writes to `path`.
    """
    path = Path(path)
    target = default_target(path) if target is None else Path(target)
    sidecar = _sidecar(path)
    check_target(path, target, overwrite=overwrite, with_sidecar=False)
    values = {name: old.tensor() for name, old in sidecar.before.items() if old is not None}
    added = sidecar.before.keys() - values.keys()
    with writing(target), temporary_beside(target) as copy:
        written = write_copy(
            path, copy, values, key=sidecar.key, trust_pickle=trust_pickle, removed=added
        )
        if written.source_sha256 != sidecar.target.sha256:
            raise input_error(path, "was changed while it was being read; start again")
        flush_file(copy)
        check_names(path, target, overwrite=overwrite, with_sidecar=False)
        take_name(copy, target)
        flush_name(target)
    identical = written.sha256 == sidecar.source.sha256
    notes = written.notes
    if not (identical or sidecar.in_place):
        notes = (f"{path.name} is not a patched {sidecar.source.name}: it was saved anew", *notes)
    return RestoreReport(
        path, target, sidecar.source.name, identical, len(values), notes, written.sha256
    )


def default_target(path: Path) -> Path:
    """`ckpt.recalibrated.pth` becomes `ckpt.restored.pth`; `ckpt.pth` becomes the same."""
    if _RECALIBRATED in path.name:
        return path.with_name(path.name.replace(_RECALIBRATED, _RESTORED))
    return path.with_name(f"{path.stem}{_RESTORED}{path.suffix}")


def _sidecar(path: Path) -> Sidecar:
    try:
        with path.open("rb") as file:
            return read_sidecar(path, sha256_of(file))
    except OSError as error:
        raise input_error(path, f"cannot be read ({error.strerror}); check the path") from None
