"""What a recalibration found and decided: everything that is printed of it or kept beside the file.

Plain frozen dataclasses <-> JSON, as the Audit; nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bnaudit.results.audit import DataInfo, ModelInfo
from bnaudit.results.change import Change, Share
from bnaudit.results.documents import write_document
from bnaudit.results.layers import Estimate
from bnaudit.results.run_time import RunTime

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["exact", "sequential", "precise", "ema"]

Level = Literal[
    "gain",  # accuracy is significantly better
    "no-loss",  # no significant gain, and no loss beyond what is allowed
    "loss",  # accuracy may be worse than what is allowed: not written
    "undecided",  # too few verification samples to tell: not written
    "better-fit",  # without labels: the statistics fit the verification data better
    "worse-fit",  # without labels: they do not: not written
    "not-finite",  # the outputs are not finite with the new statistics: not written
    "unverified",  # no verification data
    "nothing-to-change",  # no layer was recalibrated
]


@dataclass(frozen=True)
class Verification:
    """The network before and after on data that took no part in the recalibration.

    `layer_shift` is the root mean square of the layers' (debiased) ESM, `largest_shift` the largest
    layer's. `accuracy` (0 to 1), `loss` and `entropy` (nats) are means over samples; `accuracy` and
    `loss` need labels, `entropy`, `agreement` and `kl` class scores; `relative_rms` is for other
    outputs. `only_before_correct` and `only_after_correct` are the discordant pairs, `p_value`
    McNemar's exact two-sided one. `overlap`: samples left out because the calibration data hold
    them too. `max_loss` is the loss of accuracy that is allowed (0 to 1). `broken_before`: what is
    said of the old statistics where forwards with them are not finite; there are no shifts then.
    `not_finite`: the samples whose outputs are not finite with the new ones, as in `NetworkAudit`.
    """

    data: DataInfo
    overlap: int
    max_loss: float
    layer_shift: Change | None = None
    largest_shift: Change | None = None
    labelled: int = 0
    accuracy: Change | None = None
    only_before_correct: int | None = None
    only_after_correct: int | None = None
    p_value: float | None = None
    loss: Change | None = None
    entropy: Change | None = None
    agreement: Share | None = None
    kl: float | None = None
    relative_rms: float | None = None
    broken_before: str | None = None
    not_finite: int = 0


@dataclass(frozen=True)
class Decision:
    """Whether the new statistics are to be used, and why, in words.

    `accept` is the verdict of the verification; `forced` says that the user overrode a refusal.
    `samples_needed`: how many labelled verification samples would settle an undecided case.
    """

    level: Level
    accept: bool
    sentence: str
    forced: bool = False
    samples_needed: int | None = None

    @property
    def use(self) -> bool:
        """Whether the new statistics are used in the end."""
        return self.accept or self.forced


@dataclass(frozen=True)
class RecalibratedLayer:
    """One layer: whether its statistics changed, and its shift before and after.

    `own_shift` and `inherited_shift` come from the calibration data (methods exact and sequential):
    what the layer's estimate gets wrong with everything upstream corrected, and what it inherits
    from upstream. `calibration_before` and `calibration_after` (the residual) are plain ESM on the
    calibration data, `verify_before` and `verify_after` on the verification data. `noise_floor` is
    the ESM that statistics of so many samples have by their number alone.
    """

    name: str
    kind: str
    channels: int
    changed: bool
    reason: str | None = None
    aliases: tuple[str, ...] = ()
    order: int | None = None
    own_shift: Estimate | None = None
    own_output_shift: Estimate | None = None
    inherited_shift: float | None = None
    calibration_before: float | None = None
    calibration_after: float | None = None
    verify_before: Estimate | None = None
    verify_after: Estimate | None = None
    noise_floor: float | None = None


@dataclass(frozen=True)
class MemoryEstimate:
    """What `exact` holds at once, in bytes: per sample at the widest barrier, in all, the limit."""

    per_sample: int
    needed: int
    limit: int
    device: str


@dataclass(frozen=True)
class Recalibrated:
    """One recalibration: how it was made, what changed, what the verification said.

    `method` is the one that ran, `asked` the one that was asked for; `notes` say why they differ
    and what else a reader has to know. `residual` is the largest ESM of the recalibrated layers on
    the calibration data under the new statistics. `noise_floor`: the largest layer's;
    `samples_enough` is the number of samples that would bring it down to `NOISE_ENOUGH`.
    """

    versions: dict[str, str]
    device: str
    dtype: str
    model: ModelInfo
    data: DataInfo
    asked: Method
    method: Method
    layers: tuple[RecalibratedLayer, ...]
    decision: Decision
    prior: float = 0.0
    residual_before: float | None = None
    residual: float | None = None
    residual_layer: str | None = None
    noise_floor: float | None = None
    noise_floor_layer: str | None = None
    samples_enough: int | None = None
    memory: MemoryEstimate | None = None
    batch_dependence: tuple[str, ...] = ()
    verification: Verification | None = None
    notes: tuple[str, ...] = ()
    run_time: RunTime | None = field(default=None, compare=False)
    schema: int = 1

    @property
    def changed(self) -> list[RecalibratedLayer]:
        """The recalibrated layers in call order."""
        changed = [layer for layer in self.layers if layer.changed]
        return sorted(changed, key=lambda layer: layer.order if layer.order is not None else 0)

    def to_json(self) -> str:
        """As a JSON document."""
        return write_document(self.schema, asdict(self))

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, the estimates by their value."""
        import pandas as pd

        return pd.DataFrame([_row(layer) for layer in self.layers])

    def __repr__(self) -> str:
        return f"<Recalibration of {self.model.source} by {self.method}: {self.decision.sentence}>"


NOISE_ENOUGH = 0.05
"""A noise floor of the new statistics that is small enough, in standard deviations: half the shift
at which a layer is called shifted."""


def _row(layer: RecalibratedLayer) -> dict[str, Any]:
    row = asdict(layer)
    for key, value in row.items():
        if isinstance(value, dict):
            row[key] = value["value"]
    row["aliases"] = " ".join(layer.aliases)
    return row
