"""Writing an Inspection: under a temporary name, flushed, then renamed."""

from __future__ import annotations

from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.report.files import check_folder
from bnaudit.results.inspection import Inspection

INSPECTION = "inspection.json"


def write_inspection(inspection: Inspection, folder: Path) -> Path:
    """`inspection.json` into `folder`, made where missing; a file of that name is replaced.

    Raises `InputError` where the folder cannot be written.
    """
    check_folder(folder)
    path = folder / INSPECTION
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(inspection.to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written: {error}") from error
    return path
