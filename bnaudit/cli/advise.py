"""`bnaudit advise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bnaudit.cli.options import OUT

EPILOG = """\
Examples:

bnaudit advise bnaudit-results/small_batch

bnaudit advise audit.json

bnaudit advise audit.json --json | jq '.remedies[] | {rank, name, command}'
"""


def advise(
    audit: Annotated[
        Path,
        typer.Argument(help="An audit.json, or the folder that holds one.", show_default=False),
    ],
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the advice on stdout and nothing else.",
            rich_help_panel=OUT,
        ),
    ] = False,
) -> None:
    """Rank what can be done about a saved Audit, with the evidence and the cost of each remedy.

    Without the model and the data: every sentence rests on figures of the Audit, and says where in
    audit.json they stand. A large shift alone is no fault: what decides about new statistics is how
    the network scored as deployed and by the statistics of mini-batches.
    """
    from bnaudit.cli import screen
    from bnaudit.report.advice import print_advice
    from bnaudit.verbs.advise import advise as advise_on

    advice = advise_on(audit)
    if json:
        typer.echo(advice.to_json(), nl=False)
    messages = screen.messages()
    if not json or messages.is_terminal:
        print_advice(advice, messages if json else screen.tables())
