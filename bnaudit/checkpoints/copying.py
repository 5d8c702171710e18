"""A copy of a checkpoint whose bytes differ from the original's only where they should."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bnaudit.checkpoints.formats import Format
from bnaudit.checkpoints.offsets_zip import checksum_runs, content_of, member_of, put
from bnaudit.checkpoints.places import Located, Run, plan
from bnaudit.checkpoints.stored import StoredTensor

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Copied:
    """SHA-256 of what was read, and of what was written if the other bytes are as they were.

    Both are of the bytes that went through memory: the files are read back by whoever doubts them.
    """

    source_sha256: str
    sha256: str | None


def patched_copy(
    file: BinaryIO,
    format_: Format,
    located: Located,
    values: Mapping[str, StoredTensor],
    copy: Path,
) -> Copied:
    """Write the content of `file` to `copy` with `values`, each in the type of its place.

    Where an archive's members are compressed it is packed anew, each with its old content. Raises
    `CannotPatch` where a tensor has no place of its own.
    """
    runs = plan(located, {name: value.data for name, value in values.items()})
    if any(located.starts[record] is None for record in runs):
        _repack(file, runs, copy)
        return Copied(sha256_of(file), None)
    absolute = [
        Run(start + run.start, run.data)
        for record, changed in runs.items()
        if (start := located.starts[record]) is not None
        for run in changed
    ]
    if format_ == "zip":
        absolute += checksum_runs(file, runs)
    return _copy(file, absolute, copy)


def _copy(file: BinaryIO, runs: Sequence[Run], copy: Path) -> Copied:
    before, after = hashlib.sha256(), hashlib.sha256()
    file.seek(0)
    at = 0
    waiting = sorted(runs, key=lambda run: run.start)
    with copy.open("wb") as new:
        while chunk := bytearray(file.read(_CHUNK)):
            before.update(chunk)
            put(chunk, at, waiting)
            after.update(chunk)
            new.write(chunk)
            at += len(chunk)
            waiting = [run for run in waiting if run.start + len(run.data) > at]
    return Copied(before.hexdigest(), after.hexdigest())


def _repack(file: BinaryIO, runs: Mapping[str, Sequence[Run]], copy: Path) -> None:
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(copy, "w") as new:
        changed = {member_of(old, record): edits for record, edits in runs.items()}
        for info in old.infolist():
            content = bytearray(content_of(old, info.filename))
            put(content, 0, changed.get(info.filename, ()))
            new.writestr(info, bytes(content))


def sha256_of(file: BinaryIO) -> str:
    """Of the file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
