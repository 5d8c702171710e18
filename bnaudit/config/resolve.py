"""The settings in force: the command line over a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bnaudit.config.files import ConfigFile
from bnaudit.config.settings import Settings
from bnaudit.errors import InputError


def resolve(options: Mapping[str, Any], file: ConfigFile | None) -> Settings:
    """The settings in force: the file's values, overridden by every option that was given.

    `options` holds None for what the command line does not say. Dictionaries (`model_arg`,
    `thresholds`) are merged key by key. Raises `InputError` naming the option or the file's key.
    """
    values: dict[str, Any] = dict(file.values) if file else {}
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        values[key] = _merged(values.get(key), value)
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        key = ".".join(map(str, first["loc"]))
        where = option if name in given or file is None else f"{file.path}: key {key!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {message}, got {first['input']!r}") from error


_OPTIONS = {"thresholds": "--threshold"}
"""Settings whose option has another name."""


def _merged(old: object, new: Any) -> Any:
    """`new` over `old`, key by key where both are dictionaries."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
