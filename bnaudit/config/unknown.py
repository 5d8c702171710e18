"""The names of settings in a file: with dashes or underscores, and those that do not exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from bnaudit.config.gate import GateSettings, Tolerance
from bnaudit.config.lines import Place
from bnaudit.config.names import nearest
from bnaudit.config.settings import Settings

VERBS = (
    *("advise", "compare", "config", "domains", "explain", "init", "inspect", "leakage"),
    *("measure", "recalibrate", "report", "restore", "sweep"),
)
"""Names of verbs that people may try as tables; `gate` is one."""


def model_at(place: Place) -> type[BaseModel] | None:
    """The model whose fields are the keys of the table at `place`; None where the user names the
    keys, or there is no such table."""
    model: type[BaseModel] = Settings
    for part in place:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        model = inner
    return model


def known_as(place: Place) -> Place:
    """The place with underscores for dashes, in the names of settings but not in the user's own."""
    return tuple(
        part.replace("-", "_")
        if isinstance(part, str) and model_at(_underscored(place[:depth])) is not None
        else part
        for depth, part in enumerate(place)
    )


def _underscored(place: Place) -> Place:
    return tuple(part.replace("-", "_") if isinstance(part, str) else part for part in place)


def named(table: Mapping[str, Any], place: Place = ()) -> dict[str, Any]:
    """A table with the names of settings as the models have them.

    Raises `KeyError` with the key that is given twice, with a dash and with an underscore.
    """
    if model_at(place) is None:
        return dict(table)
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in values:
            raise KeyError(key)
        values[name] = named(value, (*place, name)) if isinstance(value, dict) else value
    return values


def unknown_keys(values: Mapping[str, Any], place: Place = ()) -> Iterator[Place]:
    """The places of all keys that are not known, at any depth."""
    model = model_at(place)
    if model is None:
        return
    for key, value in values.items():
        inside = (*place, key)
        if key not in model.model_fields or (not place and _is_of_a_verb(key, value)):
            yield inside
        elif isinstance(value, dict):
            yield from unknown_keys(value, inside)


def _is_of_a_verb(key: str, value: object) -> bool:
    return key in VERBS and isinstance(value, dict)


def hint(place: Place, value: object) -> str:
    """What to do about the unknown key there, to stand after it."""
    name, table = str(place[-1]), place[:-1]
    if not table and _is_of_a_verb(name, value):
        return "; verbs have no tables of their own: its keys stand at the top level of the file"
    if place == ("tool",):
        return "; [tool.bnaudit] is for pyproject.toml, here its keys stand at the top level"
    if name == "trust_pickle":
        return "; it is for the command line only: --trust-pickle"
    for home, there in _HOMES:
        if table != home and name in there.model_fields:
            return f"; it belongs {_HOMES_IN_WORDS[home]}"
    model = model_at(table)
    return nearest(name, _settable(model)) if model is not None else ""


_HOMES: tuple[tuple[Place, type[BaseModel]], ...] = (
    ((), Settings),
    (("gate",), GateSettings),
    (("gate", "tolerance"), Tolerance),
)

_HOMES_IN_WORDS: Mapping[Place, str] = {
    (): "at the top level, above the first table of the file",
    ("gate",): "in the table [gate]",
    ("gate", "tolerance"): "in the table [gate.tolerance]",
}


def _settable(model: type[BaseModel]) -> Iterable[str]:
    return [name for name in model.model_fields if name != "trust_pickle"]
