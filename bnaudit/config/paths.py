"""Paths in a configuration file are relative to the file, not to where one stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnaudit.config.lines import Place
from bnaudit.errors import InputError

NAME_SCHEMES = ("torchvision", "timm")
"""Of specs of the form `scheme:rest`: those whose rest is a name."""

PATTERN_SCHEMES = ("tar", "parquet")
"""Those whose rest is a pattern of paths, or several with `::` between them."""

PATH_SCHEMES = ("hf", "imagefolder", "cifar10", "npz", *PATTERN_SCHEMES)
"""Those whose rest is a path."""

SCHEMES = NAME_SCHEMES + PATH_SCHEMES

_PATHS = {
    ("checkpoint",),
    ("output",),
    ("against",),
    ("gate", "baseline"),
    ("gate", "base_checkpoint"),
}
_SPECS = {(name,) for name in ("model", "data", "verify", "train_data")} | {
    (name,) for name in ("transform", "forward", "compare")
}
_REPORTS = {("gate", "report")}
_TABLES_OF_SPECS = {("domain",), ("domain_transform",)}
"""Tables whose keys are the user's names, and whose values are specs."""

Where = Callable[[Place], str]


def rebased(values: dict[str, Any], folder: Path, where: Where) -> dict[str, Any]:
    """The settings with every path in them made one from `folder`.

    `where` tells the place of a setting. Raises `InputError` for what cannot be a path.
    """
    return _table(values, folder, where, ())


def _table(table: dict[str, Any], folder: Path, where: Where, place: Place) -> dict[str, Any]:
    return {key: _value(value, folder, where, (*place, key)) for key, value in table.items()}


def _value(value: Any, folder: Path, where: Where, place: Place) -> Any:
    if isinstance(value, list):
        return [_value(item, folder, where, place) for item in value]
    if isinstance(value, dict):
        walked = place == ("gate",) or place in _TABLES_OF_SPECS
        return _table(value, folder, where, place) if walked else value
    is_spec = place in _SPECS or place[:-1] in _TABLES_OF_SPECS
    if not isinstance(value, str) or not (is_spec or place in _PATHS | _REPORTS):
        return value
    try:
        if place in _PATHS:
            return _path(value, folder)
        return _report(value, folder) if place in _REPORTS else _spec(value, folder)
    except (RuntimeError, ValueError) as error:  # ~somebody without a home; a null character
        name = ".".join(map(str, place))
        raise InputError(f"{where(place)}: key {name!r}: {value!r} is no path: {error}") from error


def _path(text: str, folder: Path) -> str:
    if "\0" in text:
        raise ValueError("it has a null character in it")
    return str(folder / Path(text).expanduser())


def _spec(spec: str, folder: Path) -> str:
    scheme, _, rest = spec.partition(":")
    if scheme in PATTERN_SCHEMES:
        return f"{scheme}:{'::'.join(_path(pattern, folder) for pattern in rest.split('::'))}"
    if scheme in PATH_SCHEMES:
        return f"{scheme}:{_path(rest, folder)}"
    if scheme.endswith(".py"):
        return f"{_path(scheme, folder)}:{rest}"
    return spec


def _report(text: str, folder: Path) -> str:
    """`junit=gate.xml`; "-" is no path."""
    kind, equals, path = text.partition("=")
    return f"{kind}={_path(path, folder)}" if equals and path not in ("", "-") else text
