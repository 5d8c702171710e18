"""The Audit: everything that a measurement found, and everything that is printed or plotted.

Plain frozen dataclasses <-> JSON <-> DataFrame. Nothing here imports torch, so that a saved Audit
is read in a moment and without the model. Figures are in the units of `docs/figures.md`: shifts
and discrepancies in standard deviations of the normalised activation.
"""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from bnaudit.results.channels import ChannelTable
from bnaudit.results.data_checks import DataChecks
from bnaudit.results.documents import read_document, write_document
from bnaudit.results.findings import Finding
from bnaudit.results.layers import Estimate, LayerAudit
from bnaudit.results.marks import Marks
from bnaudit.results.preprocessing import Preprocessing
from bnaudit.results.run_time import RunTime

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


@dataclass(frozen=True)
class Attribution:
    """Where the shift comes from, on a subset of `samples` samples.

    Every layer's `own_shift`, `inherited_shift` and `attributed_shift` (their total) belong to
    this subset; intervals of own shifts are conditional on the statistics upstream. `spearman`
    is the rank correlation of the total shift with depth, `first_third` and `last_third` the root
    mean square of the total shift over the first and the last third of the layers.

    `layers_that_matter`: the layers of largest own output shift, as few as bring the outputs within
    a tenth of the full correction when only they are recalibrated, on `search_samples` samples;
    None where the search was not made, `search_note` says why. `full_effect` is what the full
    correction does to the outputs, `left_effect` what is left of it with those layers alone, by
    `effect`: mean KL in nats, or relative RMS difference.
    """

    samples: int
    spearman: float | None = None
    first_third: float | None = None
    last_third: float | None = None
    layers_that_matter: tuple[str, ...] | None = None
    search_samples: int = 0
    search_note: str | None = None
    effect: Literal["kl", "relative_rms"] | None = None
    full_effect: float | None = None
    left_effect: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The model and, where there is one, the checkpoint it was loaded from."""

    source: str
    parameters: int
    bn_layers: dict[str, int]
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    checkpoint_notes: tuple[str, ...] = ()
    checkpoint_key: str | None = None


@dataclass(frozen=True)
class DataInfo:
    """The reference data: what was read, in which order, and a fingerprint of it."""

    source: str
    samples: int
    available: int | None
    batch_size: int | None
    seed: int | None
    groups: int
    fingerprint: str
    transform: str | None = None
    labelled: bool = False
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy (0 to 1) and mean cross-entropy (nats) on `samples` labelled samples.

    The loss is None where it is not finite; its standard error is that of a mean over samples.
    """

    samples: int
    accuracy: float
    loss: float | None
    loss_standard_error: float | None = None


@dataclass(frozen=True)
class NetworkAudit:
    """The network's outputs under mini-batch statistics against those under the estimates.

    `deployed` scores all samples. The rest compares on the `compared` samples that fill whole
    mini-batches: `deployed_compared` and `batch_statistics` score the same samples,
    `only_deployed_correct` and `only_batch_correct` are the discordant pairs. `agreement` is the
    share of equal top-1 classes, `kl` the mean KL(deployed ‖ batch statistics) in nats.
    `relative_rms` is for outputs that are no class scores: √(Σ(a−b)²/Σa²); `custom` holds the
    figures of the user's own comparison. `correct`: which samples `deployed` gets right; `agreed`:
    which of the compared ones have the same top-1 class; both in reading order, for paired
    comparison, None where some samples have no class scores or no label. `not_finite`: the samples
    whose deployed output is not finite: class scores with NaN or +∞, or all −∞; NaN in any other
    output. Where an output has no axis of samples it is all samples of its batch.
    """

    task: Literal["classification", "other"]
    batch_size: int | None
    compared: int
    deployed: Score | None = None
    deployed_compared: Score | None = None
    batch_statistics: Score | None = None
    only_deployed_correct: int | None = None
    only_batch_correct: int | None = None
    agreement: float | None = None
    kl: float | None = None
    relative_rms: float | None = None
    not_comparable: tuple[str, ...] = ()
    custom: dict[str, float | None] = field(default_factory=dict)
    kept_estimates: tuple[str, ...] = ()
    note: str | None = None
    correct: Marks | None = None
    agreed: Marks | None = None
    not_finite: int = 0


@dataclass(frozen=True)
class TrainedOnLayer:
    """A layer on the training data: `shift`, its output shift there; `moved`, the output shift that
    statistics exact on the training data would have on the reference data.

    Both in the deployed condition; the interval of `moved` counts the noise of both data sets.
    """

    name: str
    shift: Estimate
    moved: Estimate | None


@dataclass(frozen=True)
class TrainedOn:
    """The same network measured on the data that it was trained on: whose fault a shift is."""

    data: DataInfo
    layers: tuple[TrainedOnLayer, ...]
    score: Score | None = None


@dataclass(frozen=True)
class Request:
    """The command-line options of this run, to be repeated in the commands that findings give.

    Each as words: `model` names the architecture and the part of the file, `data` and `train_data`
    the data, `how` the transform, the forward and all that every verb takes, `measuring` what only
    `measure` does.
    """

    checkpoint: str
    model: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    train_data: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    measuring: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The one-line conclusion: what it is, and the sentence with its figures."""

    level: Literal["healthy", "shifted", "broken", "undecided", "nothing-to-audit"]
    sentence: str


@dataclass(frozen=True, repr=False)
class Audit:
    """One measurement of one model on one reference set: what every verb reads or writes.

    `batch_statistics_size`: of the mini-batches that were compared; `train_batch_size` the same
    where the user said that the model was trained so. `run_time` is of this run alone: Audits that
    differ in nothing else are equal.
    """

    versions: dict[str, str]
    device: str
    dtype: str
    model: ModelInfo
    data: DataInfo | None
    batch_statistics_size: int | None
    layers: tuple[LayerAudit, ...]
    network: NetworkAudit | None
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None
    findings: tuple[Finding, ...] = ()
    train_batch_size: int | None = None
    request: Request | None = None
    trained_on: TrainedOn | None = None
    data_checks: DataChecks = field(default_factory=DataChecks)
    attribution: Attribution | None = None
    preprocessing: Preprocessing | None = None
    run_time: RunTime | None = field(default=None, compare=False)
    schema: int = SCHEMA
    channels: ChannelTable | None = field(default=None, compare=False)

    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012 - read by pydantic

    @property
    def audited(self) -> list[LayerAudit]:
        """The layers that have figures, in call order."""
        layers = [layer for layer in self.layers if layer.status == "audited"]
        return sorted(layers, key=lambda layer: layer.order if layer.order is not None else 0)

    def layer(self, name: str) -> LayerAudit:
        """The layer called `name`, also by an alias. KeyError where there is none."""
        for layer in self.layers:
            if name == layer.name or name in layer.aliases:
                return layer
        raise KeyError(name)

    def to_json(self) -> str:
        """The document `audit.json`: everything but the per-channel arrays."""
        document = asdict(replace(self, channels=None))
        del document["channels"]
        return write_document(self.schema, document)

    @classmethod
    def from_json(cls, text: str, *, source: str = "audit") -> Audit:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        remedy = "give an audit.json, or measure anew"
        return read_document(cls, text, schema=SCHEMA, source=source, remedy=remedy)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, in call order first, the estimates flattened (`total_shift_low`, …)."""
        import pandas as pd

        in_order = self.audited + [layer for layer in self.layers if layer.status != "audited"]
        return pd.DataFrame([_row(layer) for layer in in_order])

    def __repr__(self) -> str:
        verdict = self.verdict.sentence if self.verdict else "no verdict"
        return f"<Audit of {self.model.source}, {len(self.audited)} layers. {verdict}>"

    def _repr_html_(self) -> str:
        columns = ["name", "channels", "total_shift", "total_shift_low", "total_shift_high"]
        columns += ["output_shift", "total_shift_noise_floor", "discrepancy", "batch_noise"]
        table = self.to_frame()
        headline = f"{self.model.source}: {len(self.audited)} BatchNorm layers"
        verdict = f"<p><b>{html.escape(self.verdict.sentence)}</b></p>" if self.verdict else ""
        items = "".join(
            f"<li><b>{finding.code}</b> {html.escape(finding.sentence)} "
            f"<i>{html.escape(finding.remedy)}</i></li>"
            for finding in self.findings
        )
        findings = f"<ul>{items}</ul>" if items else ""
        body = (
            table[columns].to_html(index=False, float_format="{:.3g}".format, na_rep="")
            if len(table)
            else ""
        )
        return f"<p>{html.escape(headline)}</p>{verdict}{findings}{body}"


_NOT_IN_FRAME = ("call_sites", "left_out_squared_shift", "left_out_squared_output_shift")


def _row(layer: LayerAudit) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in asdict(layer).items():
        if key in ("total_shift", "output_shift", "own_shift", "own_output_shift"):
            for part in ("value", "low", "high", "noise_floor", "plain"):
                row[key if part == "value" else f"{key}_{part}"] = value[part] if value else None
        elif key in ("aliases", "undefined_channels"):
            row[key] = " ".join(map(str, value))
        elif key in ("variance_ratio", "own_variance_ratio"):
            row[key] = math.exp(value["log_median"]) if value else None
        elif key == "initial_share":
            row[key] = value["share"] if value else None
        elif key not in _NOT_IN_FRAME:
            row[key] = value
    return row
