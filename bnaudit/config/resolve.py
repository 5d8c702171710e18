"""The settings in force: the command line over a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bnaudit.config.expected import expected, shown
from bnaudit.config.files import ConfigFile
from bnaudit.config.lines import Place, dotted
from bnaudit.config.settings import Settings
from bnaudit.errors import InputError


def resolve(options: Mapping[str, Any], file: ConfigFile | None) -> Settings:
    """The settings in force: the file's values, overridden by every option that was given.

    `options` holds None for what the command line does not say. Tables (`model_arg`, `thresholds`,
    `gate`) are merged key by key. Raises `InputError` naming the option or the file's key and line.
    """
    given = _without_none(options)
    values = _merged(dict(file.values) if file else {}, given)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise InputError(_told(error.errors(), values, given, file)) from error


def _told(
    errors: list[ErrorDetails],
    values: dict[str, Any],
    given: dict[str, Any],
    file: ConfigFile | None,
) -> str:
    """The first error, and how many more there are."""
    places = [_place(error["loc"], values) for error in errors]
    place, first = places[0], errors[0]
    more = len(set(places)) - 1
    others = f" (and {more} more wrong value{'s' if more > 1 else ''})" if more else ""
    if file is None or _value_at(given, place) is _value_at(values, place):
        where = _option(place)
    else:
        where = f"{file.where(place)}: key {dotted(place)!r}"
    wanted = expected(first)
    if len([other for other in places if other == place]) > 1:  # one for each type that would do
        kinds = [expected(error) for error, at in zip(errors, places, strict=True) if at == place]
        wanted = " or ".join(dict.fromkeys(kinds)).replace(" or give ", " or ")
    return f"{where}: {wanted}, got {shown(_value_at(values, place))}{others}"


class _Nothing:
    """No value, where None is one."""


_NOTHING = _Nothing()


def _value_at(values: Any, place: Place) -> Any:
    for part in place:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return _NOTHING
    return values


def _place(loc: tuple[int | str, ...], values: dict[str, Any]) -> Place:
    """The way into `values`, without what pydantic adds to it for the members of a union."""
    place: Place = ()
    for part in loc:
        if _value_at(values, (*place, part)) is _NOTHING or isinstance(
            _value_at(values, place), str
        ):
            break
        place = (*place, part)
    return place


_OPTIONS = {"thresholds": "--threshold"}
"""Settings whose option has another name."""


def _option(place: Place) -> str:
    name = str(place[1] if place[0] == "gate" and len(place) > 1 else place[0])
    return _OPTIONS.get(name, "--" + name.replace("_", "-"))


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) and key == "gate" else value
        for key, value in values.items()
        if value is not None
    }


def _merged(old: object, new: Any) -> Any:
    """`new` over `old`, key by key where both are dictionaries."""
    if isinstance(new, dict) and old is not None and not isinstance(old, dict):
        return old  # no table where one is due: told as such, and not hidden by an option
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
