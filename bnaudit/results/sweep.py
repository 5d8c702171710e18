"""What a sweep found: a network's figures over the values of one quantity.

Plain frozen dataclasses <-> JSON; nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnaudit.results.audit import DataInfo, ModelInfo, Request
from bnaudit.results.change import Change
from bnaudit.results.documents import read_document, write_document
from bnaudit.results.findings import Finding
from bnaudit.results.scores import Figure, Scores

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["batch-size", "samples", "prior", "example-weight", "momentum"]

Role = Literal["held-out", "train"]
"""Which data: those of `--data` (for what recalibrates, the part kept for verification), or those
that the model was trained on."""

Question = Literal[
    "trained-at",  # at which mini-batch size was the model probably trained
    "larger-batch",  # what a larger normalisation batch than that would give
    "enough-samples",  # how many samples suffice
    "best",  # which value is best
]

SCHEMA = 1


@dataclass(frozen=True)
class SweepPoint:
    """The network at one value of what is swept, on one set of data.

    `scores`: where there are several draws, means over draws, with the interval over draws.
    `accuracy_change` and `loss_change` compare with the estimates, `accuracy_from_exact` and
    `loss_from_exact` with exact statistics, on the same samples (paired). `shift`: the root mean
    square over layers, in standard deviations: of the layer discrepancy for batch sizes, of the
    residual ESM for what recalibrates; `by_layer` the same of each layer, in the order of
    `Sweep.layers`, None where a layer has none.
    """

    value: float
    role: Role
    scores: Scores
    accuracy_change: Change | None = None
    loss_change: Change | None = None
    accuracy_from_exact: Change | None = None
    loss_from_exact: Change | None = None
    shift: Figure | None = None
    by_layer: tuple[float | None, ...] = ()
    draws: int = 1


@dataclass(frozen=True)
class SweepData:
    """Data that the values were tried on, and the network on them without any of the values.

    `estimates`: under the checkpoint's statistics; `exact`: under exact ones.
    """

    role: Role
    info: DataInfo
    estimates: Scores
    exact: Scores | None = None


@dataclass(frozen=True)
class Conclusion:
    """What a sweep says of one question, in one sentence with its figures.

    `value`: the answer, None where the data do not tell; `candidates`: the values that cannot be
    told from it. `gain`: of accuracy (0 to 1) where labels allow it, otherwise of the loss; for
    "best" on samples that took no part in the choice. `significant`: whether the interval of the
    gain excludes 0, or for "trained-at" whether fewer than all values remain.
    """

    question: Question
    sentence: str
    value: float | None = None
    candidates: tuple[float, ...] = ()
    gain: Change | None = None
    loss_gain: Change | None = None
    significant: bool = False


@dataclass(frozen=True)
class Sweep:
    """One sweep: the network over the values of one quantity.

    `points`: by role, then by value. `calibration`: the data that statistics were computed on,
    where there are any. `layers`: the names of the layers with figures, in call order. `current`:
    the value in force now, where one is known (a momentum, a mini-batch size the user named).
    `updates`: how often the moving averages moved, of momenta.
    """

    kind: Kind
    versions: dict[str, str]
    device: str
    dtype: str
    model: ModelInfo
    data: tuple[SweepData, ...]
    points: tuple[SweepPoint, ...]
    conclusions: tuple[Conclusion, ...] = ()
    layers: tuple[str, ...] = ()
    calibration: DataInfo | None = None
    current: float | None = None
    updates: int | None = None
    findings: tuple[Finding, ...] = ()
    request: Request | None = None
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def values(self) -> tuple[float, ...]:
        """The values that were tried, ascending."""
        return tuple(sorted({point.value for point in self.points}))

    def of(self, role: Role) -> list[SweepPoint]:
        """The points on the data of this role, by value."""
        return sorted((p for p in self.points if p.role == role), key=lambda p: p.value)

    def conclusion(self, question: Question) -> Conclusion | None:
        """What is said of a question, None where it was not asked."""
        return next((c for c in self.conclusions if c.question == question), None)

    def to_json(self) -> str:
        """As a JSON document."""
        return write_document(self.schema, asdict(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "sweep") -> Sweep:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        return read_document(
            cls, text, schema=SCHEMA, source=source, remedy="give what bnaudit sweep wrote"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a point, figures flattened (`accuracy`, `accuracy_low`, …)."""
        import pandas as pd

        return pd.DataFrame([_row(self, point) for point in self.points])

    def __repr__(self) -> str:
        said = " ".join(one.sentence for one in self.conclusions) or "no conclusion"
        return f"<Sweep of {self.model.source} over {self.kind}: {said}>"


def _row(sweep: Sweep, point: SweepPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"value": point.value, "role": point.role, "draws": point.draws}
    row |= {"samples": point.scores.samples, "labelled": point.scores.labelled}
    figures = {name: getattr(point.scores, name) for name in ("accuracy", "loss", "agreement")}
    for name, figure in (figures | {"kl": point.scores.kl, "shift": point.shift}).items():
        row[name] = figure.value if figure else None
        row[f"{name}_low"] = figure.low if figure else None
        row[f"{name}_high"] = figure.high if figure else None
    for name in ("accuracy_change", "loss_change", "accuracy_from_exact", "loss_from_exact"):
        change: Change | None = getattr(point, name)
        row[name] = change.difference if change else None
        row[f"{name}_low"] = change.low if change else None
        row[f"{name}_high"] = change.high if change else None
    return row | dict(zip(sweep.layers, point.by_layer, strict=False))
