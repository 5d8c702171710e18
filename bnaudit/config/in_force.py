"""Which value each setting has, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from bnaudit.config.defaults import where_not_set
from bnaudit.config.files import ConfigFile
from bnaudit.config.lines import Place, dotted
from bnaudit.config.settings import Settings

COMMAND_LINE_ONLY = {"trust_pickle"}

THRESHOLDS = "thresholds"


@dataclass(frozen=True)
class InForce:
    """A setting by its dotted key, with its value; None: not set, `otherwise` says what holds then.

    `source`: the file that sets it, None for a default; `line` of it, where that is known.
    `follows`: the setting that it has its value from, as it has none of its own.
    """

    key: str
    value: Any
    source: str | None = None
    line: int | None = None
    otherwise: str | None = None
    follows: str | None = None

    @property
    def origin(self) -> str:
        """`bnaudit.toml:7`, "follows BN101.shift", or "default"."""
        if self.follows is not None:
            return f"follows {self.follows}"
        if self.source is None:
            return "default"
        return self.source if self.line is None else f"{self.source}:{self.line}"


def in_force(settings: Settings, file: ConfigFile | None) -> tuple[InForce, ...]:
    """Every setting that a file can hold, in the order of the model; tables by their keys."""
    words = where_not_set(settings)
    return tuple(
        replace(one, otherwise=words.get(one.key)) if one.value is None else one
        for one in _settings(settings, file, ())
    )


def _settings(model: BaseModel, file: ConfigFile | None, place: Place) -> Iterator[InForce]:
    for name in type(model).model_fields:
        if name not in COMMAND_LINE_ONLY:
            yield from _values(getattr(model, name), file, (*place, name))


def _values(value: Any, file: ConfigFile | None, place: Place) -> Iterator[InForce]:
    if isinstance(value, BaseModel):
        yield from _settings(value, file, place)
    elif isinstance(value, dict) and value:
        for key, inner in value.items():
            # Thresholds are tables in a table; other tables hold values as they were given.
            if place == (THRESHOLDS,):
                yield from _values(inner, file, (*place, key))
            else:
                yield of(value[key], file, (*place, key))
    else:
        yield of(value, file, place)


def of(value: Any, file: ConfigFile | None, place: Place) -> InForce:
    """The setting there, from the file where that has it."""
    if file is None or not _has(file.values, place):
        return InForce(dotted(place), value)
    return InForce(dotted(place), value, str(file.path), file.lines.get(place))


def _has(values: Any, place: Place) -> bool:
    for part in place:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True
