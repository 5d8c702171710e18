"""Writing what `leakage` found: its document, two tables and the plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.report.files import check_folder
from bnaudit.results.leakage import Leakage, ProbedLayer, rows

LEAKAGE = "leakage.json"
TABLE = "leakage.csv"
LAYERS = "leakage_layers.csv"
PLOT = "leakage"
PLOT_KINDS = ("png", "svg")


def write_leakage(found: Leakage, folder: Path, *, plots: bool = True) -> list[Path]:
    """`leakage.json`, `leakage.csv`, `leakage_layers.csv` and the plot into `folder`.

    Files of the same names are replaced, or removed where there is nothing to write. Raises
    `InputError` where the folder cannot be written.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            _write(folder / LEAKAGE, partial(_put, found.to_json())),
            _write(folder / TABLE, partial(_put, _table(rows(found)))),
        ]
        if found.probed is not None:
            listed = [_row(layer) for layer in found.probed.layers]
            written.append(_write(folder / LAYERS, partial(_put, _table(listed))))
        written += _plot(found, folder) if plots else []
        for name in (LAYERS, *(f"{PLOT}.{kind}" for kind in PLOT_KINDS)):
            if folder / name not in written:  # of an earlier run
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written: {error}") from error
    return written


def _row(layer: ProbedLayer) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in asdict(layer).items():
        parts = value if isinstance(value, dict) else {"": value}
        row |= {f"{name}_{part}".rstrip("_"): figure for part, figure in parts.items()}
    return row


def _table(listed: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in listed for name in row))
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(listed)
    return text.getvalue()


def _plot(found: Leakage, folder: Path) -> list[Path]:
    from bnaudit.report.leakage_plot import figure
    from bnaudit.report.plots import save

    drawn = figure(found)
    if drawn is None:
        return []
    return [
        _write(folder / f"{PLOT}.{kind}", partial(save, drawn, kind=kind)) for kind in PLOT_KINDS
    ]


def _put(text: str, path: Path) -> None:
    # A lone surrogate in a name out of a document is no UTF-8.
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def _write(path: Path, make: Callable[[Path], object]) -> Path:
    with replacing(path) as temporary:
        make(temporary)
    return path
