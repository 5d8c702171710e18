"""Configuration files: where they are found, and their values with paths made absolute."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnaudit.config.names import nearest
from bnaudit.config.settings import Settings
from bnaudit.errors import InputError

DEFAULT_FILE = "bnaudit.toml"
SCHEMES = ("torchvision", "timm", "imagefolder", "cifar10", "npz")
"""Specs of the form `scheme:rest`; of these, all but the first two name a path."""

_PATH_SCHEMES = SCHEMES[2:]


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file as read: where it is, and its values with paths made absolute."""

    path: Path
    values: dict[str, Any]


def find_config(folder: Path) -> Path | None:
    """`bnaudit.toml` in `folder`, else a `pyproject.toml` there that has [tool.bnaudit]."""
    if (folder / DEFAULT_FILE).is_file():
        return folder / DEFAULT_FILE
    pyproject = folder / "pyproject.toml"
    if pyproject.is_file() and _tool_table(pyproject, _read_toml(pyproject)) is not None:
        return pyproject
    return None


def read_config(path: Path) -> ConfigFile:
    """Read a TOML file. Raises `InputError` that names the file and the line or the key."""
    if path.is_dir():
        raise InputError(f"--config {path}: is a folder, give a TOML file")
    document = _read_toml(path)
    if path.name == "pyproject.toml":
        table = _tool_table(path, document)
        if table is None:
            raise InputError(f"--config {path}: has no table [tool.bnaudit]; add one")
        document = table
    values = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in Settings.model_fields:
            raise InputError(f"{path}: unknown key {key!r}{nearest(name, Settings.model_fields)}")
        if name == "trust_pickle":
            raise InputError(f"{path}: trust_pickle is for the command line only: --trust-pickle")
        values[name] = _rebased(name, value, path.parent)
    return ConfigFile(path, values)


def _tool_table(path: Path, document: dict[str, Any]) -> dict[str, Any] | None:
    tool = document.get("tool", {})
    table = tool.get("bnaudit") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{path}: tool.bnaudit is to be a table, [tool.bnaudit]")
    return table


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"--config {path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error


def _rebased(name: str, value: Any, folder: Path) -> Any:
    """Paths in a configuration file are relative to the file, not to where one stands."""
    if isinstance(value, list):
        return [_rebased(name, item, folder) for item in value]
    if not isinstance(value, str):
        return value
    if name in ("checkpoint", "output", "against"):
        return str(folder / Path(value).expanduser())
    if name in ("model", "data", "verify", "train_data", "transform", "forward", "compare"):
        return _rebased_spec(value, folder)
    return value


def _rebased_spec(spec: str, folder: Path) -> str:
    scheme, _, rest = spec.partition(":")
    if scheme in _PATH_SCHEMES:
        return f"{scheme}:{folder / Path(rest).expanduser()}"
    if scheme.endswith(".py"):
        return f"{folder / Path(scheme).expanduser()}:{rest}"
    return spec
