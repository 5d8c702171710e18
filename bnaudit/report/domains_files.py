"""Writing a comparison of domains: its document, tables of all figures, and the plots."""

from __future__ import annotations

from pathlib import Path

from bnaudit.atomic import replacing
from bnaudit.errors import InputError
from bnaudit.report.files import check_folder
from bnaudit.results.domains import Domains

DOCUMENT = "domains.json"
TABLE = "domains.csv"
LAYERS = "domains_layers.csv"
PLOTS = ("domains", "domains_by_layer")
PLOT_KINDS = ("png", "svg")


def write_domains(result: Domains, folder: Path, *, plots: bool = True) -> list[Path]:
    """`domains.json`, two CSV tables and the plots into `folder`, made where missing.

    Files of the same names are replaced. Raises `InputError` where the folder cannot be written.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            _text(folder / DOCUMENT, result.to_json()),
            _text(folder / TABLE, result.to_frame().to_csv(index=False)),
        ]
        if result.layers and result.pairs:
            table = result.layers_to_frame().to_csv(index=False)
            written.append(_text(folder / LAYERS, table))
        if plots:
            written += _plots(result, folder)
        of_earlier_runs = [folder / LAYERS] + [
            folder / f"{name}.{kind}" for name in PLOTS for kind in PLOT_KINDS
        ]
        for path in of_earlier_runs:
            if path not in written:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written: {error}") from error
    return written


def _plots(result: Domains, folder: Path) -> list[Path]:
    from bnaudit.report.domains_plots import figures
    from bnaudit.report.plots import save

    written = []
    for name, figure in figures(result):
        for kind in PLOT_KINDS:
            path = folder / f"{name}.{kind}"
            with replacing(path) as temporary:
                save(figure, temporary, kind)
            written.append(path)
    return written


def _text(path: Path, text: str) -> Path:
    with replacing(path) as temporary:
        # A lone surrogate in a name out of a document is no UTF-8.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return path
