"""What can be set: one typed model for all verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bnaudit.config.gate import GateSettings

_LARGEST = 2**63 - 1  # of the integers that NumPy and torch take

Positive = Annotated[int, Field(ge=1, le=_LARGEST, strict=True)]
Count = Annotated[int, Field(ge=0, le=_LARGEST, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Switch = Annotated[bool, Field(strict=True)]


class Settings(BaseModel):
    """What a user can set, on the command line or in a file. One field an option."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    checkpoint: Path | None = None
    model: str | None = None
    model_arg: dict[str, Any] = Field(default_factory=dict)
    checkpoint_key: str | None = None
    allow_mismatch: Switch = False
    trust_pickle: Switch = False
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
    workers: Count | Literal["auto"] = "auto"
    decode: Literal["cpu", "gpu"] = "cpu"
    rank_timeout: Positive = 1800  # seconds
    skip_bad: Switch = False
    device: str = "auto"
    dtype: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: Switch = False
    output: Path | None = None
    plots: Switch = True
    attribute: Positive | Literal["all", "none"] = 512
    method: Literal["exact", "sequential", "precise", "ema"] = "exact"
    momentum: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    prior: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 0.0
    layers: list[str] = Field(default_factory=list)
    above: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    include_frozen: Switch = False
    max_memory: str | Positive | None = None
    verify: str | None = None
    verify_arg: dict[str, Any] = Field(default_factory=dict)
    verify_split: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    verify_samples: Positive | Literal["all"] = 2000
    max_loss: Annotated[float, Field(ge=0, le=100, strict=True)] = 0.5
    train_data: str | None = None
    train_data_arg: dict[str, Any] = Field(default_factory=dict)
    domain: dict[str, str] = Field(default_factory=dict)  # its name -> data, as in `data`
    domain_arg: dict[str, dict[str, Any]] = Field(default_factory=dict)
    domain_transform: dict[str, str] = Field(default_factory=dict)
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
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

    @field_validator("workers", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)  # the command line gives text
        if value == "auto" or (type(value) is int and 0 <= value <= _LARGEST):
            return value
        raise ValueError("give an integer from 0, or auto")

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
