"""What `bnaudit gate` reads, so that nothing it writes replaces it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnaudit.config import PATH_SCHEMES, Settings, find_config
from bnaudit.errors import InputError
from bnaudit.regular_files import is_folder, real_place

_JUDGING = ("checkpoint", "gate", "threshold", "select", "ignore", "output", "plots")


def refuse_measuring(given: Mapping[str, Any], audit: Path) -> None:
    """Options of the command line that only a measurement heeds, beside an Audit that exists.

    A configuration file may hold them: it is for both. Raises `InputError`.
    """
    names = [name for name, value in given.items() if value not in (None, [])]
    options = [f"--{name.replace('_', '-')}" for name in names if name not in _JUDGING]
    if options:
        raise InputError(
            f"{', '.join(options)}: for measuring, and {audit} was measured already: leave "
            f"{'them' if len(options) > 1 else 'it'} out, or give the checkpoint"
        )


def read_by(settings: Settings, existing: Path | None, config: Path | None) -> list[Path]:
    """The files that a run with these settings reads, but for the baseline.

    `existing`: the Audit that is judged, or its folder; `config`: as on the command line.
    """
    found = config or find_config(Path())
    specs = (settings.model, settings.transform, settings.forward, settings.compare)
    data = (settings.data, settings.train_data)
    given = (
        _audit_file(existing),
        settings.checkpoint,
        settings.gate.base_checkpoint,
        found,
        *(_file(spec) for spec in (*specs, *data)),
    )
    return [path for path in given if path is not None]


def check_output(folder: Path, existing: Path | None, baseline: Path | None) -> bool:
    """Whether the Audit is to be written there: not where it stands there already.

    Raises `InputError` where it would replace the baseline, or the folder cannot be written.
    """
    from bnaudit.report.files import AUDIT, check_folder

    check_folder(folder)
    place = real_place(folder / AUDIT)
    against = _audit_file(baseline)
    if against is not None and real_place(against) == place:
        raise InputError(
            f"--output {folder}: its {AUDIT} is the baseline, which the new Audit would replace; "
            "give another folder"
        )
    own = _audit_file(existing)
    return own is None or real_place(own) != place


def _audit_file(path: Path | None) -> Path | None:
    from bnaudit.report.files import AUDIT

    return path / AUDIT if path is not None and is_folder(path) else path


def _file(spec: str | None) -> Path | None:
    scheme, _, rest = (spec or "").partition(":")
    if scheme in PATH_SCHEMES:
        return Path(rest)
    return Path(scheme) if scheme.endswith(".py") else None
