"""Configuration files: where they are found, and their values with paths made absolute."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bnaudit.config.lines import Place, dotted, lines_of
from bnaudit.config.paths import rebased
from bnaudit.config.unknown import hint, known_as, named, unknown_keys
from bnaudit.errors import InputError
from bnaudit.regular_files import is_folder
from bnaudit.text_files import UnreadableError, read_text

DEFAULT_FILE = "bnaudit.toml"
PYPROJECT = "pyproject.toml"
TABLE = ("tool", "bnaudit")

LARGEST = 2**20
"""Bytes of a configuration file. Pages of settings are a hundredth of it."""

DEEPEST = 16
"""Tables in tables; the settings need four."""


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file as read: where it is, and its values with paths made absolute.

    `lines`: on which line each setting stands, from 1, as far as that is known.
    """

    path: Path
    values: dict[str, Any]
    lines: Mapping[Place, int] = field(default_factory=dict)

    def where(self, place: Place) -> str:
        """`bnaudit.toml:7`, or the file alone where the line is not known."""
        line = self.lines.get(place)
        return str(self.path) if line is None else f"{self.path}:{line}"


def find_config(folder: Path) -> Path | None:
    """`bnaudit.toml` in `folder`, else a `pyproject.toml` there that has [tool.bnaudit]."""
    if (folder / DEFAULT_FILE).is_file():
        return folder / DEFAULT_FILE
    pyproject = folder / PYPROJECT
    if not pyproject.is_file():
        return None
    return None if _tool_table(pyproject, _read(pyproject)[0]) is None else pyproject


def read_config(path: Path) -> ConfigFile:
    """Read a TOML file. Raises `InputError` that names the file and the line or the key."""
    if is_folder(path):
        raise InputError(f"--config {path}: is a folder, give a TOML file")
    document, lines = _read(path)
    top: Place = ()
    if path.name == PYPROJECT:
        table = _tool_table(path, document)
        if table is None:
            raise InputError(f"--config {path}: has no table [tool.bnaudit]; add one")
        document, top = table, TABLE
    lines = {known_as(place[len(top) :]): lines[place] for place in lines if _below(place, top)}
    file = ConfigFile(path, _named(path, document), lines)
    _refuse_unknown(file)
    if "trust_pickle" in file.values:
        place = file.where(("trust_pickle",))
        raise InputError(f"{place}: trust_pickle is for the command line only: --trust-pickle")
    return replace(file, values=rebased(file.values, path.parent, file.where))


def _below(place: Place, top: Place) -> bool:
    return len(place) > len(top) and place[: len(top)] == top


def _named(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    try:
        return named(document)
    except KeyError as error:
        name = str(error.args[0])
        raise InputError(
            f"{path}: key {name!r} is given twice, with a dash and with an underscore; leave one"
        ) from error


def _refuse_unknown(file: ConfigFile) -> None:
    unknown = list(unknown_keys(file.values))
    if not unknown:
        return
    place = unknown[0]
    value: Any = file.values
    for part in place:
        value = value[part]
    more = f" (and {len(unknown) - 1} more unknown keys)" if len(unknown) > 1 else ""
    raise InputError(
        f"{file.where(place)}: unknown key {dotted(place)!r}{hint(place, value)}{more}"
    )


def _tool_table(path: Path, document: dict[str, Any]) -> dict[str, Any] | None:
    tool = document.get("tool", {})
    table = tool.get("bnaudit") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{path}: tool.bnaudit is to be a table, [tool.bnaudit]")
    return table


def _read(path: Path) -> tuple[dict[str, Any], Mapping[Place, int]]:
    """The document and the lines of its keys."""
    if not os.path.lexists(path):
        raise InputError(f"--config {path}: no such file")
    try:
        text = read_text(path, largest=LARGEST)
        lines = lines_of(text)  # first, because it refuses what tomllib would take minutes over
        document = tomllib.loads(text)
        if _depth(document) > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
    except RecursionError as error:
        raise InputError(f"{path}: cannot be read as TOML: nested too deeply") from error
    except (UnreadableError, ValueError) as error:  # also a number of too many digits
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error
    return document, lines


def _depth(document: object) -> int:
    """How deep tables and lists are nested, without recursion."""
    depth = 0
    level: list[Any] = [document]
    while level and depth <= DEEPEST:
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        depth += 1
    return depth
