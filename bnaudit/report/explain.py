"""Rules in the terminal: Markdown as a terminal shows it, and a table of the codes."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from bnaudit.report.findings import STYLE


def print_explanation(console: Console, title: str, severity: str, body: str) -> None:
    """A rule: its title in the colour of its severity, then its text, given as Markdown."""
    console.print(Text(title, style=STYLE[severity]))
    console.print()
    console.print(Markdown(body))


def print_codes(console: Console, rows: Iterable[tuple[str, str, str, str]]) -> None:
    """A row a rule: code, name, severity, meaning, given as Markdown of one line."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("code", no_wrap=True)
    table.add_column("name", overflow="fold")
    table.add_column("severity", no_wrap=True)
    table.add_column("meaning", ratio=1)
    for code, name, severity, meaning in rows:
        table.add_row(
            code, name, Text(severity, style=STYLE[severity]), Text(meaning.replace("`", ""))
        )
    console.print(table)
    console.print(Text("\nbnaudit explain CODE tells more of each; --all, of all of them."))
