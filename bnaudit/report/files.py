"""Writing results: each file under a temporary name, flushed, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.regular_files import is_folder, is_there
from bnaudit.results import Audit, ChannelTable
from bnaudit.text_files import UnreadableError, read_text

LARGEST = 2**26
"""Bytes of an audit.json. A thousand layers are a tenth of it."""

AUDIT = "audit.json"
CHANNELS = "channels.npz"
LAYERS = "layers.csv"
PLOTS = (
    "shift_by_depth",
    "own_and_inherited_by_depth",
    "channels_by_depth",
    "worst_layers",
    "discrepancy_by_depth",
)


def write_results(audit: Audit, folder: Path, *, plots: bool = True) -> list[Path]:
    """`audit.json`, `layers.csv`, `channels.npz` and the plots into `folder`, made where missing.

    Files of the same names are replaced. Raises `InputError` where the folder cannot be written.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            _write_text(folder / AUDIT, audit.to_json()),
            _write_text(folder / LAYERS, audit.to_frame().to_csv(index=False)),
        ]
        if audit.channels is not None:
            written.append(_write(folder / CHANNELS, audit.channels.save))
        if plots and audit.audited:
            written += _write_plots(audit, folder)
        _remove_outdated(folder, written)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written: {error}") from error
    return written


def result_files(folder: Path) -> list[Path]:
    """Every file that `write_results` may write into `folder`, and replaces or removes there."""
    plots = [f"{plot}.{kind}" for plot in PLOTS for kind in ("png", "svg")]
    return [folder / name for name in (AUDIT, LAYERS, CHANNELS, *plots)]


def remove_results(folder: Path) -> None:
    """What an earlier run left: for a run that gave no Audit, and whose results are others.

    Raises `InputError` where a file cannot be removed.
    """
    try:
        _remove_outdated(folder, [])
    except OSError as error:
        raise InputError(
            f"--output {folder}: what an earlier run left there cannot be removed: {error}"
        ) from error


def _remove_outdated(folder: Path, written: list[Path]) -> None:
    """What an earlier run left under our names does not belong to this Audit."""
    for path in result_files(folder):
        if path not in written:
            path.unlink(missing_ok=True)


def check_folder(folder: Path, option: str = "--output") -> None:
    """Fail before the work, not after it, where the results of `option` could not be written."""
    existing = folder
    while not is_there(existing) and existing != existing.parent:
        existing = existing.parent
    if not is_folder(existing):
        raise InputError(f"{option} {folder}: {existing} is a file; give a folder")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{option} {folder}: {existing} is not writable; give another folder")


def read_results(path: Path) -> Audit:
    """An Audit from `audit.json` (or its folder), with the per-channel arrays beside it.

    An Audit of another name stands alone: arrays beside it belong to an audit.json.
    """
    file = path / AUDIT if is_folder(path) else path
    try:
        text = read_text(file, largest=LARGEST)
    except UnreadableError as error:
        raise InputError(
            f"{file}: cannot be read as an Audit: {error}; give an audit.json or its folder"
        ) from error
    audit = Audit.from_json(text, source=str(file))
    channels = file.with_name(CHANNELS)
    if file.name == AUDIT and os.path.lexists(channels):
        table = ChannelTable.load(channels)
        _check_belongs(table, audit, channels, file)
        audit = replace(audit, channels=table)
    return audit


def _check_belongs(table: ChannelTable, audit: Audit, channels: Path, file: Path) -> None:
    theirs = [(layer.name, layer.channels) for layer in audit.audited]
    sizes = (table.offsets[1:] - table.offsets[:-1]).tolist()
    if list(zip(table.names.tolist(), sizes, strict=True)) != theirs:
        raise InputError(
            f"{channels}: its layers are not those of {file}: it belongs to another Audit; "
            "remove it, or measure anew"
        )


def _write_plots(audit: Audit, folder: Path) -> list[Path]:
    from bnaudit.report.plots import figures, save

    written = []
    for name, figure in figures(audit):
        for kind in ("png", "svg"):
            draw = partial(save, figure, kind=kind)
            written.append(_write(folder / f"{name}.{kind}", draw))
    return written


def _write_text(path: Path, text: str) -> Path:
    return _write(path, lambda temporary: _put(temporary, text))


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")  # names may be no proper text


def _write(path: Path, make: Callable[[Path], object]) -> Path:
    with replacing(path) as temporary:
        make(temporary)
    return path
