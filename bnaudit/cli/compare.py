"""`bnaudit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bnaudit.cli import options
from bnaudit.cli.options import OUT, option

EPILOG = """\
Examples:

bnaudit compare before.json after.json

bnaudit compare bnaudit-results/main bnaudit-results/branch -o bnaudit-results/change

bnaudit compare before.json after.json --json | jq '.layers[] | {name, output_shift}'
"""


def compare(
    before: Annotated[
        Path,
        typer.Argument(help="An audit.json, or the folder that holds one.", show_default=False),
    ],
    after: Annotated[Path, typer.Argument(help="The same of what came later.", show_default=False)],
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            help="Also write changes.json, changes.csv and the plot into this folder.",
            panel=OUT,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the comparison on stdout and nothing else.",
            rich_help_panel=OUT,
        ),
    ] = False,
    show_all: options.ShowAll = False,
) -> None:
    """What changed from one Audit to another, with intervals: without the model and the data.

    Layer by layer, for the network, and by findings. What moved beyond the noise of both
    measurements is marked; where both saw the same samples, what they have in common cancels. It
    judges nothing: that is `bnaudit gate --baseline`.
    """
    from bnaudit.cli import screen
    from bnaudit.report.changes import print_changes
    from bnaudit.report.changes_files import write_changes
    from bnaudit.report.files import check_folder
    from bnaudit.verbs.compare import compare as compare_audits

    if output is not None:
        check_folder(output)
    changes = compare_audits(before, after)
    written = write_changes(changes, output) if output is not None else []
    if json:
        typer.echo(changes.to_json(), nl=False)
    messages = screen.messages()
    console = messages if json else screen.tables()
    if not json or messages.is_terminal:
        print_changes(changes, console, all_layers=show_all)
        screen.print_written(console, written)
