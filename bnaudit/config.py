"""The settings of a run: one typed model, filled from a TOML file and the command line.

The file has the same names as the options, with underscores or dashes; paths in it are relative to
the file. The command line wins.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bnaudit.errors import InputError

DEFAULT_FILE = "bnaudit.toml"
SCHEMES = ("torchvision", "timm", "imagefolder", "cifar10", "npz")
"""Specs of the form `scheme:rest`; of these, all but the first two name a path."""

_PATH_SCHEMES = SCHEMES[2:]


Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Tolerance(BaseModel):
    """How much worse than the baseline a figure may be, beyond the noise of both measurements.

    `relative`: of a shift, the same as a share of the baseline's; the larger of the two counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer_esm: Figure = 0.05
    total_esm: Figure = 0.03
    disagreement: Share = 0.02
    accuracy: Share = 0.01
    relative: Figure = 0.1


class GateSettings(BaseModel):
    """The table `[gate]`: what fails, against which limits, and what does not count.

    `max_layer_esm`: of the largest output shift of a layer; `max_total_esm`: of its root mean
    square over the layers; `max_disagreement`: of the share of samples whose top-1 class differs
    between the estimates and mini-batch statistics; `max_cross_entropy`: of the mean loss, in nats.
    `select`, `ignore`: which findings count here. `per_layer_ignores`: by the glob of a layer's
    name, codes that do not count there, "all" for everything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fail_on: Literal["error", "warning", "info", "nothing"] = "warning"
    inconclusive: Literal["fail", "pass"] = "fail"
    max_layer_esm: Figure | None = None
    max_total_esm: Figure | None = None
    max_disagreement: Share | None = None
    max_cross_entropy: Figure | None = None
    min_accuracy: Share | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_layer_ignores: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    baseline: Path | None = None
    tolerance: Tolerance = Tolerance()
    report: tuple[str, ...] = ()

    @field_validator("select", "ignore", "report", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Settings(BaseModel):
    """What a user can set, on the command line or in a file. One field an option."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    checkpoint: Path | None = None
    model: str | None = None
    model_arg: dict[str, Any] = Field(default_factory=dict)
    checkpoint_key: str | None = None
    allow_mismatch: bool = False
    trust_pickle: bool = False
    data: str | None = None
    data_arg: dict[str, Any] = Field(default_factory=dict)
    transform: str | None = None
    forward: str | None = None
    compare: str | None = None
    task: Literal["auto", "classification", "other"] = "auto"
    batch_size: Positive | None = None
    train_batch_size: Positive | None = None
    samples: Positive | Literal["all"] | None = None  # None: the verb's own default
    seed: Count = 0
    workers: Count = 0
    skip_bad: bool = False
    device: str = "auto"
    dtype: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = False
    output: Path | None = None
    plots: bool = True
    attribute: Positive | Literal["all", "none"] = 512
    method: Literal["exact", "sequential", "precise", "ema"] = "exact"
    momentum: Annotated[float, Field(gt=0, le=1)] | None = None
    prior: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    layers: list[str] = Field(default_factory=list)
    above: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    include_frozen: bool = False
    max_memory: str | Positive | None = None
    verify: str | None = None
    verify_arg: dict[str, Any] = Field(default_factory=dict)
    verify_split: Annotated[float, Field(gt=0, lt=1)] | None = None
    verify_samples: Positive | Literal["all"] = 2000
    max_loss: Annotated[float, Field(ge=0, le=100)] = 0.5
    train_data: str | None = None
    train_data_arg: dict[str, Any] = Field(default_factory=dict)
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    against: list[Path] = Field(default_factory=list)
    thresholds: dict[str, dict[str, Number]] = Field(default_factory=dict)
    select: list[str] = Field(default_factory=list)
    ignore: list[str] = Field(default_factory=list)
    severity: dict[str, Literal["error", "warning", "info"]] = Field(default_factory=dict)
    gate: GateSettings = GateSettings()

    @field_validator("samples", "verify_samples", mode="before")
    @classmethod
    def _number_or_all(cls, value: object) -> object:
        return _number_or(value, "all")

    @field_validator("attribute", mode="before")
    @classmethod
    def _number_all_or_none(cls, value: object) -> object:
        return _number_or(value, "all", "none")

    @field_validator("layers", "select", "ignore", "against", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


def _number_or(value: object, *words: str) -> object:
    if value is None or value in words:
        return value
    if isinstance(value, str) and value.isdecimal():
        value = int(value)  # the command line gives text
    if type(value) is int and value > 0:
        return value
    raise ValueError(f"give a positive number, or {' or '.join(words)}")


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


def nearest(name: str, known: Any) -> str:
    """`; did you mean 'x'?`, or what is known where nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(sorted(known))}"


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
