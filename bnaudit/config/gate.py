"""The table `[gate]` of the settings: what fails, against which limits, and what does not count."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


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
    name, codes that do not count there, "all" for everything. `baseline`: the Audit to compare
    with; `base_checkpoint`: or the checkpoint, which is measured on the same samples first.
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
    base_checkpoint: Path | None = None
    tolerance: Tolerance = Tolerance()
    report: tuple[str, ...] = ()

    @field_validator("select", "ignore", "report", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value
