"""Settings of the gate given as keywords, from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from bnaudit.config.expected import expected, shown
from bnaudit.config.gate import GateSettings, Tolerance
from bnaudit.config.names import nearest
from bnaudit.errors import InputError

_OF_THE_COMMAND = {"report", "base_checkpoint"}
"""Settings that only `bnaudit gate` heeds: where it writes, and what it loads."""


def gate_settings(given: Mapping[str, Any]) -> GateSettings:
    """The settings with these values. Raises `InputError` that names the keyword."""
    known = GateSettings.model_fields.keys() - _OF_THE_COMMAND
    for name in given:
        if name in _OF_THE_COMMAND:
            raise InputError(f"{name} is for the command bnaudit gate alone")
        if name not in known:
            raise InputError(_unknown(name, known))
    try:
        return GateSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise InputError(_unknown(name, _in_tables())) from error
        raise InputError(f"{name}: {expected(first)}, got {shown(first['input'])}") from error


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"there is no setting of the gate {name!r}{nearest(name, known)}"


def _in_tables() -> list[str]:
    return [f"tolerance.{name}" for name in Tolerance.model_fields]
