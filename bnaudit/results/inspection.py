"""What `inspect` finds in a checkpoint file: dataclasses <-> JSON <-> DataFrame. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bnaudit.results.comparison import Comparison
from bnaudit.results.documents import read_document, write_document
from bnaudit.results.findings import Finding

if TYPE_CHECKING:
    import pandas as pd

INSPECTION_SCHEMA = 1


@dataclass(frozen=True)
class FileFacts:
    """A checkpoint file.

    `format`: "zip" (torch.save since 1.6), "legacy" (torch.save before) or "safetensors". `bytes`:
    its size. `key`: the place of the weights in it, "" for the top level; `others`: other places
    that would have done. `tensors`, `elements`: of the weights. `steps`: how many steps its
    optimizer made; None where the file does not say.
    """

    path: str
    format: str
    bytes: int
    key: str
    others: tuple[str, ...]
    tensors: int
    elements: int
    steps: int | None


@dataclass(frozen=True)
class Range:
    """Minimum, median and maximum over the channels whose value is finite."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Histogram:
    """How many channels fall between `low + i·width` and `low + (i + 1)·width`.

    `low` is a multiple of `width`, which is the same in all layers, so that histograms can be laid
    side by side; empty bins at the ends are left out.
    """

    low: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class InspectedLayer:
    """One BatchNorm layer as it is stored.

    `running_mean`, `running_var`, `gamma` (of |γ|): None where no channel is finite, or there is no
    γ. `largest_scale`: max |γ|/√(v̂ + ε) over the channels where it is defined. `dead`: channels
    with 0 ≤ v̂ < k·ε, k the Inspection's `multiple_of_eps`. `non_finite`: channels in
    which a mean, variance, γ or β is NaN or infinite. `log_variance`: of log10 v̂, from −8 (0
    included) to 4. `mean_in_deviations`: of m̂/√v̂ where v̂ > 0, from −4 to 4. What lies beyond
    counts in the bin at the end. The rest is as in `results.state.LayerState`.
    """

    name: str
    channels: int
    kind: str | None
    dtype: str
    num_batches_tracked: float | None
    eps: float
    eps_known: bool
    momentum: float | None
    tracks: bool | None
    running_mean: Range | None
    running_var: Range | None
    gamma: Range | None
    largest_scale: float | None
    dead: int
    non_finite: int
    log_variance: Histogram
    mean_in_deviations: Histogram


@dataclass(frozen=True, repr=False)
class Inspection:
    """What a checkpoint file alone tells about its BatchNorm layers, in the order of the file.

    `without_statistics`: layers that look like BatchNorm and have weights alone, and those that
    have a part of their statistics. `against`: what happened since the checkpoints that it was
    compared with. `multiple_of_eps`: k, the threshold of
    BN012, for the `dead` channels of the layers.
    """

    tool: str
    file: FileFacts
    layers: tuple[InspectedLayer, ...]
    without_statistics: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    against: Comparison | None = None
    multiple_of_eps: float = 1.0
    schema: int = INSPECTION_SCHEMA

    def layer(self, name: str) -> InspectedLayer:
        """The layer called `name`. KeyError where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def to_json(self) -> str:
        """The document `inspection.json`."""
        return write_document(self.schema, asdict(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "inspection") -> Inspection:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        remedy = "give an inspection.json, or inspect anew"
        return read_document(cls, text, schema=INSPECTION_SCHEMA, source=source, remedy=remedy)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, the ranges flattened (`running_var_median`, …), without histograms."""
        import pandas as pd

        return pd.DataFrame([_row(layer) for layer in self.layers])

    def __repr__(self) -> str:
        findings = ", ".join(f"{f.code} {f.name} ({f.severity})" for f in self.findings) or "none"
        return f"<Inspection of {self.file.path}, {len(self.layers)} layers. Findings: {findings}>"


def _row(layer: InspectedLayer) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in asdict(layer).items():
        if key in ("running_mean", "running_var", "gamma"):
            for part in ("minimum", "median", "maximum"):
                row[f"{key}_{part}"] = value[part] if value else None
        elif key not in ("log_variance", "mean_in_deviations"):
            row[key] = value
    return row
