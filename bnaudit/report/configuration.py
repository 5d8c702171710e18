"""The settings in force, as a table and as a document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnaudit.config import DEFAULT_FILE
from bnaudit.config.in_force import InForce
from bnaudit.errors import InputError
from bnaudit.report.toml import toml_value

SCHEMA = 1


def print_settings(
    console: Console, settings: Sequence[InForce], file: Path | None, folder: Path, hidden: int
) -> None:
    """A row a setting: its key, its value as TOML writes it, where it comes from.

    `hidden`: how many more have their default, or follow these.
    """
    if file is None:
        console.print(Text(_not_found(folder)))
    if settings:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        longest = max(len(setting.key) for setting in settings)
        table.add_column("setting", overflow="fold", min_width=min(longest, 40))
        table.add_column("value", overflow="fold", ratio=1)
        table.add_column("from", overflow="fold")
        for setting in settings:
            origin = Text(setting.origin, style="dim" if setting.source is None else "")
            table.add_row(Text(setting.key), _value(setting), origin)
        console.print(table)
    elif file is not None:
        console.print(Text(f"{file} sets nothing"))
    if hidden:
        how = "have their default, or follow others"
        console.print(Text(f"\n{hidden} settings {how}; --all shows them"))


def settings_document(settings: Sequence[InForce], file: Path | None, folder: Path) -> str:
    """The same as JSON, for programs; `line` null: a default, or not known.

    `otherwise`: what holds where `value` is null, in words.
    """
    rows = [
        {
            "key": s.key,
            "value": _plain(s.value),
            "otherwise": s.otherwise,
            "follows": s.follows,
            "file": s.source,
            "line": s.line,
        }
        for s in settings
    ]
    document = {
        "schema": SCHEMA,
        "folder": str(folder),
        "file": None if file is None else str(file),
        "settings": rows,
    }
    return json.dumps(document, indent=1, default=str, allow_nan=False) + "\n"


def _not_found(folder: Path) -> str:
    return (
        f"no configuration file: looked for {DEFAULT_FILE}, and for the table [tool.bnaudit] in "
        f"pyproject.toml, in {folder}; all settings have their default"
    )


def _value(setting: InForce) -> Text:
    value = setting.value
    if value is None:
        return Text(setting.otherwise or "not set", style="dim")
    try:
        return Text(toml_value(_plain(value)))
    except InputError:  # a date of the user's own
        return Text(str(value))


def _plain(value: Any) -> Any:
    """Paths as text, also in lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
