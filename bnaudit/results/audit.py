"""The Audit: everything that a measurement found, and everything that is printed or plotted.

Plain frozen dataclasses <-> JSON <-> DataFrame. Nothing here imports torch, so that a saved Audit
is read in a moment and without the model. Figures are in the units of `docs/figures.md`: shifts
and discrepancies in standard deviations of the normalised activation.
"""

from __future__ import annotations

import html
import json
import math
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

import numpy as np

from bnaudit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1

Status = Literal[
    "audited", "never-called", "empty-input", "batch-dependent", "unverified", "not-audited"
]


@dataclass(frozen=True)
class Estimate:
    """A root-mean-square figure with what is known about its error.

    `value` is debiased: √max(0, D² − b); `plain` is √D² as computed; `low` and `high` bound the
    95% interval (None where it is withheld); `noise_floor` is √max(0, b), what the figure would
    be from sampling alone; `standard_error` and `groups` belong to the *squared* figure D² − b,
    for tests.
    """

    value: float
    plain: float
    low: float | None = None
    high: float | None = None
    noise_floor: float | None = None
    standard_error: float | None = None
    groups: int = 0


@dataclass(frozen=True)
class CallSite:
    """One of several calls of a layer in a forward: its own figures, apart from the pooled ones."""

    call: int
    count: int
    total_shift: float


@dataclass(frozen=True)
class LayerAudit:
    """What was found about one layer; the figures are None where `status` is not "audited".

    `total_shift` is the estimation shift magnitude (ESM) in the deployed condition, `output_shift`
    the same weighted by γ², `mean_part` and `scale_part` its two (plain) parts with
    total_shift.plain² = mean_part² + scale_part². `count` is the number of elements a channel.
    `discrepancy` and `batch_noise` are at the mini-batch size of the Audit, with
    discrepancy² = shift² + batch_noise², the shift being that of the samples that fill whole
    mini-batches; where variances are near eps the noise can come out as 0.
    `left_out_squared_shift` holds D² with each group left out, for paired comparison. `own_shift`
    is the shift with everything upstream corrected, `own_output_shift` the same weighted by γ²,
    `inherited_shift` what upstream adds, `attributed_shift` the (debiased) total, all on the subset
    that `Attribution` names: as computed, total ≤ own + inherited, up to eps.
    """

    name: str
    kind: str
    status: Status
    channels: int
    note: str | None = None
    aliases: tuple[str, ...] = ()
    order: int | None = None
    calls: int = 0
    empty_calls: int = 0
    calls_per_forward: int = 0
    eps: float | None = None
    eps_source: Literal["module", "probed"] = "module"
    momentum: float | None = None
    affine: bool = False
    frozen: bool = False
    num_batches_tracked: int | None = None
    dtype: str | None = None
    count: int = 0
    total_shift: Estimate | None = None
    output_shift: Estimate | None = None
    mean_part: float | None = None
    scale_part: float | None = None
    worst_channel: int | None = None
    worst_channel_shift: float | None = None
    p95_channel_shift: float | None = None
    undefined_channels: tuple[int, ...] = ()
    unnormalised_mean_norm: float | None = None
    unnormalised_std_norm: float | None = None
    discrepancy: float | None = None
    batch_noise: float | None = None
    discrepancy_batches: int = 0
    call_sites: tuple[CallSite, ...] = ()
    left_out_squared_shift: tuple[float, ...] = ()
    own_shift: Estimate | None = None
    own_output_shift: Estimate | None = None
    inherited_shift: float | None = None
    attributed_shift: float | None = None


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

    The loss is None where it is not finite.
    """

    samples: int
    accuracy: float
    loss: float | None


@dataclass(frozen=True)
class NetworkAudit:
    """The network's outputs under mini-batch statistics against those under the estimates.

    `deployed` scores all samples. The rest compares on the `compared` samples that fill whole
    mini-batches: `deployed_compared` and `batch_statistics` score the same samples,
    `only_deployed_correct` and `only_batch_correct` are the discordant pairs. `agreement` is the
    share of equal top-1 classes, `kl` the mean KL(deployed ‖ batch statistics) in nats.
    `relative_rms` is for outputs that are no class scores: √(Σ(a−b)²/Σa²); `custom` holds the
    figures of the user's own comparison.
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


@dataclass(frozen=True)
class Verdict:
    """The one-line conclusion: what it is, and the sentence with its figures."""

    level: Literal["healthy", "shifted", "broken", "undecided", "nothing-to-audit"]
    sentence: str


@dataclass(frozen=True)
class ChannelTable:
    """Per-channel arrays of all audited layers, one after another.

    `names` (L,) and `offsets` (L + 1,): layer i owns the entries offsets[i] to offsets[i+1] of the
    other arrays, each (ΣC,) float64: the estimated and the expected (biased) statistics, γ, and
    the shift d of each channel (NaN where undefined).
    """

    names: np.ndarray
    offsets: np.ndarray
    estimated_mean: np.ndarray
    estimated_var: np.ndarray
    expected_mean: np.ndarray
    expected_var: np.ndarray
    gamma: np.ndarray
    shift: np.ndarray

    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012 - read by pydantic

    def layer(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one layer, each (C,), by name of the array."""
        index = self.names.tolist().index(name)
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return {key: getattr(self, key)[part] for key in _CHANNEL_ARRAYS}

    def save(self, path: Path) -> None:
        """Write as a compressed `.npz` with the field names as keys."""
        arrays = {key: getattr(self, key) for key in ("names", "offsets", *_CHANNEL_ARRAYS)}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> ChannelTable:
        """Read what `save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{key: file[key] for key in ("names", "offsets", *_CHANNEL_ARRAYS)})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise InputError(
                f"{path}: not the per-channel arrays of an Audit, or damaged: measure anew, or "
                "remove it"
            ) from error


_CHANNEL_ARRAYS = (
    "estimated_mean",
    "estimated_var",
    "expected_mean",
    "expected_var",
    "gamma",
    "shift",
)


@dataclass(frozen=True, repr=False)
class Audit:
    """One measurement of one model on one reference set: what every verb reads or writes."""

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
    attribution: Attribution | None = None
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
        document = {"schema": self.schema} | asdict(replace(self, channels=None))
        del document["channels"]
        return json.dumps(finite(document), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "audit") -> Audit:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        from pydantic import TypeAdapter, ValidationError

        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source}: not JSON ({error})") from error
        if not isinstance(document, dict) or "schema" not in document:
            raise InputError(f"{source}: not an Audit (no field `schema`): give an audit.json")
        if document["schema"] != SCHEMA or document["schema"] is True:
            raise InputError(
                f"{source}: schema {document['schema']!r}, this version reads {SCHEMA}: re-measure"
            )
        document.pop("channels", None)
        try:
            return TypeAdapter(cls).validate_python(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{source}: field {where}: {first['msg']}") from error

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
        body = (
            table[columns].to_html(index=False, float_format="{:.3g}".format, na_rep="")
            if len(table)
            else ""
        )
        return f"<p>{html.escape(headline)}</p>{verdict}{body}"


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def _row(layer: LayerAudit) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in asdict(layer).items():
        if key in ("total_shift", "output_shift", "own_shift", "own_output_shift"):
            for part in ("value", "low", "high", "noise_floor", "plain"):
                row[key if part == "value" else f"{key}_{part}"] = value[part] if value else None
        elif key in ("aliases", "undefined_channels"):
            row[key] = " ".join(map(str, value))
        elif key not in ("call_sites", "left_out_squared_shift"):
            row[key] = value
    return row
