"""`bnaudit config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """\
Examples:

bnaudit config show

bnaudit config show --config sample_models/bnaudit.toml --all

bnaudit config show --json | jq '.settings[] | select(.file)'
"""

config = typer.Typer(no_args_is_help=True, help="Show the settings that are in force.")


@config.command(epilog=EPILOG)
def show(
    file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="A TOML file. Default: bnaudit.toml, or the table tool.bnaudit in "
            "pyproject.toml, where one stands.",
            show_default=False,
        ),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Show the defaults too, and every threshold.")
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print all of them as JSON on stdout and nothing else."),
    ] = False,
) -> None:
    """Print what is in force in this folder and from where, before options of the command line.

    Every key, code and value of the file is checked on the way, as a verb would do; nothing that it
    points to is read or run.
    """
    from bnaudit.cli import screen
    from bnaudit.report.configuration import print_settings, settings_document
    from bnaudit.verbs.configuration import configuration

    found = configuration(file)
    if json:
        typer.echo(settings_document(found.settings, found.file, found.folder), nl=False)
        return
    shown = found.settings if show_all else found.set_in_file
    hidden = len(found.settings) - len(shown)
    print_settings(screen.tables(), shown, found.file, found.folder, hidden)
