"""Writing a baseline: an Audit, alone, where the gate will look for it."""

from __future__ import annotations

from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.report.files import check_folder
from bnaudit.results import Audit

OPTION = "--baseline"


def check_baseline(path: Path) -> None:
    """Fail before the work where a baseline could not be written. Raises `InputError`."""
    if path.is_dir():
        raise InputError(f"{OPTION} {path}: is a folder; name the file to write, such as main.json")
    check_folder(path.parent, OPTION)


def write_baseline(audit: Audit, path: Path) -> None:
    """Write the Audit, its folder too; an earlier one is replaced. Raises `InputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(audit.to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{OPTION} {path}: cannot be written: {error}") from error
