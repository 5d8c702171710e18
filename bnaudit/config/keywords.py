"""Settings of the gate given as keywords, from Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bnaudit.config.expected import expected, shown
from bnaudit.config.gate import GateSettings
from bnaudit.config.names import nearest
from bnaudit.errors import InputError


def gate_settings(given: Mapping[str, Any]) -> GateSettings:
    """The settings with these values. Raises `InputError` that names the keyword."""
    for name in given:
        if name not in GateSettings.model_fields:
            known = nearest(name, GateSettings.model_fields)
            raise InputError(f"there is no setting of the gate {name!r}{known}")
    try:
        return GateSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"{name}: {expected(first)}, got {shown(first['input'])}") from error
