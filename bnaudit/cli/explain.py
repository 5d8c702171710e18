"""`bnaudit explain`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnaudit.findings.rule import Rule

EPILOG = """\
Examples:

bnaudit explain

bnaudit explain BN012

bnaudit explain never-updated

bnaudit explain BN1

bnaudit explain --all --format markdown
"""


class Format(StrEnum):
    """How rules are written."""

    text = "text"
    markdown = "markdown"
    json = "json"


def explain(
    code: Annotated[
        str | None,
        typer.Argument(
            help="A code (BN012), its name (dead-channels), or how codes begin (BN1). None: a "
            "table of all codes.",
            show_default=False,
        ),
    ] = None,
    all_codes: Annotated[
        bool, typer.Option("--all", help="The long text of every code.", show_default=False)
    ] = False,
    form: Annotated[
        Format,
        typer.Option("--format", help="For a terminal, as a page, or as a list of objects."),
    ] = Format.text,
) -> None:
    """Say what a finding means, how it is computed, why it matters and what to do."""
    from bnaudit.errors import InputError
    from bnaudit.findings import documentation
    from bnaudit.findings.catalogue import all_rules, find_rules

    if code is not None and all_codes:
        raise InputError(f"explain {code} --all: give a code or --all, not both")
    rules = all_rules() if code is None else find_rules(code)
    if form is Format.json:
        typer.echo(json.dumps(documentation.documents(rules), indent=2, ensure_ascii=False))
    elif form is Format.text:
        _print_text(rules, table=len(rules) > 1 and not all_codes)
    elif len(rules) == 1:
        typer.echo(documentation.markdown_of(rules[0]), nl=False)
    elif all_codes:
        typer.echo(documentation.markdown_of_all(rules), nl=False)
    else:
        typer.echo(documentation.markdown_table(rules))


def _print_text(rules: Sequence[Rule], *, table: bool) -> None:
    from bnaudit.cli import screen
    from bnaudit.findings.documentation import first_sentence, markdown_body, title
    from bnaudit.report.explain import print_codes, print_explanation

    console = screen.tables()
    if table:
        print_codes(console, ((r.code, r.name, r.severity, first_sentence(r.means)) for r in rules))
        return
    for number, rule in enumerate(rules):
        if number:
            console.print()
        print_explanation(console, title(rule), rule.severity, markdown_body(rule))
