"""Writing a baseline: an Audit, alone, where the gate will look for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.regular_files import is_folder, is_there, real_place, regular_file
from bnaudit.report.files import check_folder
from bnaudit.results import Audit

OPTION = "--baseline"

_START = 64
"""Bytes of a document, in which its schema stands."""


def check_baseline(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Fail before the work where a baseline could not be written. Raises `InputError`.

    Only a baseline is replaced by one: neither `inputs`, which are read, nor any other file.
    """
    if is_folder(path):
        raise InputError(f"{OPTION} {path}: is a folder; name the file to write, such as main.json")
    if real_place(path) in [real_place(read) for read in inputs]:
        raise InputError(f"{OPTION} {path}: is read by this run; name another file to write")
    if is_there(path) and not _ours(path):
        raise InputError(f"{OPTION} {path}: is another file, no Audit; name another one to write")
    check_folder(path.parent, OPTION)


def _ours(path: Path) -> bool:
    """Whether it begins as our documents do, whole or damaged, of this or another version."""
    try:
        with regular_file(path) as file:
            start = file.read(_START)
    except OSError as error:
        raise InputError(f"{OPTION} {path}: cannot be read: {error.strerror or error}") from error
    return not start or (start.lstrip().startswith(b"{") and b'"schema"' in start)


def write_baseline(audit: Audit, path: Path) -> None:
    """Write the Audit, its folder too; an earlier one is replaced. Raises `InputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(audit.to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{OPTION} {path}: cannot be written: {error}") from error
