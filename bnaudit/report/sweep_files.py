"""Writing a sweep: its document, a table of all figures, and the plots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.report.files import check_folder
from bnaudit.results.sweep import Kind, Sweep

PLOT_KINDS = ("png", "svg")
PLOTS = ("", "_layers")
"""What the names of the plots add to that of the sweep."""


def name_of(kind: Kind) -> str:
    """How the files of a sweep of this kind begin: sweeps of other kinds keep theirs."""
    return f"sweep_{kind.replace('-', '_')}"


def write_sweep(sweep: Sweep, folder: Path, *, plots: bool = True) -> list[Path]:
    """`sweep_KIND.json`, `sweep_KIND.csv` and the plots into `folder`, made where missing.

    Files of the same names are replaced. Raises `InputError` where the folder cannot be written.
    """
    check_folder(folder)
    name = name_of(sweep.kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            _write(folder / f"{name}.json", partial(_put, sweep.to_json())),
            _write(folder / f"{name}.csv", partial(_put, sweep.to_frame().to_csv(index=False))),
        ]
        if plots:
            written += _plots(sweep, folder)
        for path in _possible_plots(folder, name):
            if path not in written:  # of an earlier sweep
                path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written: {error}") from error
    return written


def _possible_plots(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{plot}.{kind}" for plot in PLOTS for kind in PLOT_KINDS]


def _plots(sweep: Sweep, folder: Path) -> list[Path]:
    from bnaudit.report.plots import save
    from bnaudit.report.sweep_plots import figures

    return [
        _write(folder / f"{name_of(sweep.kind)}{ending}.{kind}", partial(save, figure, kind=kind))
        for ending, figure in figures(sweep)
        for kind in PLOT_KINDS
    ]


def _put(text: str, path: Path) -> None:
    # A lone surrogate in a name out of a document is no UTF-8.
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def _write(path: Path, make: Callable[[Path], object]) -> Path:
    with replacing(path) as temporary:
        make(temporary)
    return path
