"""Writing a comparison: its document, a table of all figures, and the plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.report.files import check_folder
from bnaudit.results import Changes, Difference

CHANGES = "changes.json"
TABLE = "changes.csv"
PLOT = "change_by_depth"
PLOT_KINDS = ("png", "svg")


@dataclass(frozen=True)
class Row:
    """A figure of a layer, or of the network where `layer` is empty; shares from 0 to 1."""

    figure: str
    layer: str = ""
    before_layer: str = ""
    before: float | None = None
    after: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    surely_low: float | None = None
    surely_high: float | None = None
    significant: bool | None = None
    note: str = ""


def rows(changes: Changes) -> Iterator[Row]:
    """The network's figures, then two of each layer that both sides have, in call order."""
    for item in changes.network:
        yield _row(item.figure, item.change)
    for layer in changes.layers:
        where = (layer.name, layer.before_name, layer.note or "")
        yield _row("output_shift", layer.output_shift, *where)
        yield _row("total_shift", layer.total_shift, *where)


def _row(
    figure: str, change: Difference | None, layer: str = "", before_layer: str = "", note: str = ""
) -> Row:
    if change is None:
        return Row(figure, layer, before_layer, note=note)
    # A difference whose simultaneous limits are withheld is neither significant nor not.
    significant = None if change.surely_low is None else change.significant
    return Row(figure, layer, before_layer, **asdict(change), significant=significant, note=note)


def write_changes(changes: Changes, folder: Path) -> list[Path]:
    """`changes.json`, `changes.csv` and the plot into `folder`, made where missing.

    Files of the same names are replaced. Raises `InputError` where the folder cannot be written.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            _write(folder / CHANGES, partial(_put, changes.to_json())),
            _write(folder / TABLE, partial(_put, _table(changes))),
            *_plot(changes, folder),
        ]
        for kind in PLOT_KINDS:
            path = folder / f"{PLOT}.{kind}"
            if path not in written:  # of an earlier comparison
                path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written: {error}") from error
    return written


def _table(changes: Changes) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows(changes))
    return text.getvalue()


def _plot(changes: Changes, folder: Path) -> list[Path]:
    from bnaudit.report.changes_plot import figure
    from bnaudit.report.plots import save

    drawn = figure(changes)
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
