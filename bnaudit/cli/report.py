"""`bnaudit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    audit: Annotated[Path, typer.Argument(help="An audit.json, or the folder that holds one.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Also write files and plots into this folder."),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every layer.")] = False,
) -> None:
    """Show a saved Audit again, without the model and the data.

    Example: bnaudit report bnaudit-results/small_batch
    """
    from bnaudit.cli import screen
    from bnaudit.report.files import read_results, write_results
    from bnaudit.report.terminal import print_audit

    result = read_results(audit)
    written = write_results(result, output) if output is not None else []
    console = screen.tables()
    print_audit(result, console, all_layers=show_all)
    screen.print_written(console, written)
