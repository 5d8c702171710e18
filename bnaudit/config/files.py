"""Configuration files: where they are found, and their values with paths made absolute."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bnaudit.config.lines import Place, dotted, lines_of
from bnaudit.config.paths import rebased
from bnaudit.config.unknown import hint, known_as, named, unknown_keys
from bnaudit.errors import InputError
from bnaudit.regular_files import is_folder
from bnaudit.text_files import UnreadableError, read_text

DEFAULT_FILE = "bnaudit.toml"
PYPROJECT = "pyproject.toml"

LARGEST = 2**20
"""Bytes of a configuration file. Pages of settings are a hundredth of it."""

DEEPEST = 16
"""Tables in tables; the settings need four."""

_NO_PLACE: Place = ()


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file as read: where it is, and its values with paths made absolute.

    `text`: its content, and `top` the table in it that holds the settings, for the lines.
    """

    path: Path
    values: dict[str, Any]
    text: str = ""
    top: Place = _NO_PLACE

    def line(self, place: Place) -> int | None:
        """The line of a setting, from 1; None where that is not known."""
        return self._lines.get(place)

    def where(self, place: Place) -> str:
        """`bnaudit.toml:7`, or the file alone where the line is not known."""
        line = self.line(place)
        return str(self.path) if line is None else f"{self.path}:{line}"

    @cached_property
    def _lines(self) -> Mapping[Place, int]:
        start = len(self.top)
        return MappingProxyType(
            {
                known_as(place[start:]): line
                for place, line in lines_of(self.text).items()
                if place[:start] == self.top and place[start:]
            }
        )


def find_config(folder: Path) -> Path | None:
    """`bnaudit.toml` in `folder`, else a `pyproject.toml` there that has [tool.bnaudit]."""
    if (folder / DEFAULT_FILE).is_file():
        return folder / DEFAULT_FILE
    pyproject = folder / PYPROJECT
    if (
        pyproject.is_file()
        and _tool_table(pyproject, _parsed(pyproject, _read(pyproject))) is not None
    ):
        return pyproject
    return None


def read_config(path: Path) -> ConfigFile:
    """Read a TOML file. Raises `InputError` that names the file and the line or the key."""
    if is_folder(path):
        raise InputError(f"--config {path}: is a folder, give a TOML file")
    text = _read(path)
    document = _parsed(path, text)
    top = _NO_PLACE
    if path.name == PYPROJECT:
        table = _tool_table(path, document)
        if table is None:
            raise InputError(f"--config {path}: has no table [tool.bnaudit]; add one")
        document, top = table, ("tool", "bnaudit")
    values = _named(path, document)
    file = ConfigFile(path, values, text, top)
    _refuse_unknown(file)
    if "trust_pickle" in values:
        place = file.where(("trust_pickle",))
        raise InputError(f"{place}: trust_pickle is for the command line only: --trust-pickle")
    return ConfigFile(path, rebased(file.values, path.parent, file.where), text, top)


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


def _read(path: Path) -> str:
    if not os.path.lexists(path):
        raise InputError(f"--config {path}: no such file")
    try:
        return read_text(path, largest=LARGEST)
    except UnreadableError as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: cannot be read as TOML: nested too deeply") from error
    except ValueError as error:  # also for a number of more digits than Python reads
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error
    if _depth(document) > DEEPEST:
        raise InputError(f"{path}: cannot be read as TOML: nested more than {DEEPEST} deep")
    return document


def _depth(document: object) -> int:
    """How deep tables and lists are nested, without recursion."""
    depth = 0
    level: list[Any] = [document]
    while level and depth <= DEEPEST:
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        depth += 1
    return depth
