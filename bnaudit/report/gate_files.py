"""The forms that a Gate is written in, and the files that a user asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.config import nearest
from bnaudit.errors import InputError
from bnaudit.regular_files import is_folder, is_there, real_place, with_home
from bnaudit.report.files import result_files
from bnaudit.report.github import workflow_commands
from bnaudit.report.junit import junit
from bnaudit.report.markdown import markdown
from bnaudit.results import Gate

FORMATS: dict[str, Callable[[Gate], str]] = {
    "json": Gate.to_json,
    "junit": junit,
    "markdown": markdown,
    "github": workflow_commands,
}

TERMINAL = "terminal"
"""The form for people, of `report.gate`: only for stdout."""

GATE = "gate.json"
"""Its name in a folder of results."""


@dataclass(frozen=True)
class ReportFile:
    """A file to write, and the form to write it in: one of `FORMATS`."""

    kind: str
    path: Path


def rendered(gate: Gate, kind: str) -> str:
    """A Gate in one of `FORMATS`. Raises `InputError` for another one."""
    return FORMATS[_known(kind, option="--format")](gate)


def check_format(kind: str) -> None:
    """Fail before the work for a form that stdout cannot get. Raises `InputError`."""
    if kind != TERMINAL:
        _known(kind, option="--format", more=(TERMINAL,))


def parse_reports(
    given: Iterable[str], inputs: Sequence[Path] = (), outputs: Mapping[Path, str] | None = None
) -> tuple[ReportFile, ...]:
    """`["junit=gate.xml", "markdown=summary.md"]` as files, checked before any work is done.

    `inputs`: files that are read, and must not be replaced; `outputs`: files that the run writes
    besides, and the option that asks for each. Folders that are missing are made when the report is
    written. Raises `InputError` for an unknown form, a missing path, a path that is given twice, is
    among the others, or cannot be written.
    """
    reports: list[ReportFile] = []
    taken = {real_place(path): f"is written for {by}" for path, by in (outputs or {}).items()}
    taken |= {real_place(path): "is read by this run" for path in inputs}
    for said in given:
        report = _parsed(said)
        place = real_place(report.path)
        if place in taken:
            raise InputError(f"--report {said}: {report.path} {taken[place]}; give another path")
        taken[place] = "is given twice"
        _check_place(said, report.path)
        reports.append(report)
    return tuple(reports)


def write_reports(gate: Gate, reports: Iterable[ReportFile]) -> list[Path]:
    """Write each file whole or not at all, the folders made where missing.

    Raises `InputError` where one cannot be written; those before it are written then.
    """
    written = []
    for report in reports:
        said = rendered(gate, report.kind)
        try:
            report.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(report.path) as temporary:
                temporary.write_text(said, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"--report {report.kind}={report.path}: cannot be written: {error.strerror}"
            ) from error
        written.append(report.path)
    return written


def gate_results(folder: Path) -> list[Path]:
    """Every file that a run may write into a folder of results: an Audit's, and `gate.json`."""
    return [*result_files(folder), folder / GATE]


def write_gate(gate: Gate, folder: Path) -> Path:
    """`gate.json` into `folder`, made where missing. Raises `InputError`."""
    path = folder / GATE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(gate.to_json(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written: {error.strerror}") from error
    return path


def _parsed(said: str) -> ReportFile:
    kind, equals, path = said.partition("=")
    if not (equals and path.strip()):
        kinds = ", ".join(FORMATS)
        raise InputError(f"--report {said}: write KIND=PATH, such as junit=gate.xml ({kinds})")
    known = _known(kind.strip(), option="--report")
    if path.strip() == "-":
        raise InputError(f"--report {said}: for the standard output say --format {known}")
    return ReportFile(known, with_home(path.strip()))


def _known(kind: str, *, option: str, more: Sequence[str] = ()) -> str:
    if kind not in FORMATS:
        known = (*FORMATS, *more)
        raise InputError(f"{option} {kind}: no such form{nearest(kind, known)}")
    return kind


def _check_place(said: str, path: Path) -> None:
    if is_folder(path):
        raise InputError(f"--report {said}: {path} is a folder; give a file")
    folder = path.parent
    while not is_there(folder) and folder != folder.parent:
        folder = folder.parent
    if not is_folder(folder):
        raise InputError(f"--report {said}: {folder} is a file; give a path in a folder")
    if not os.access(folder, os.W_OK):
        raise InputError(f"--report {said}: {folder} is not writable; give another path")
