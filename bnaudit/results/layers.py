"""What was found about one BatchNorm layer.

Figures are in the units of `docs/figures.md`: shifts and discrepancies in standard deviations of
the normalised activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """One of several calls of a layer in a forward: its own figures, apart from the pooled ones.

    `from_pooled`: the ESM that statistics of all calls together have at this one, which is what
    sharing them costs here.
    """

    call: int
    count: int
    total_shift: float
    from_pooled: Estimate | None = None


@dataclass(frozen=True)
class VarianceRatio:
    """The estimated over the expected variance, v̂/v, over the `channels` where both are above eps.

    `log_median`: the median of ln(v̂/v); `spread`: its standard deviation over the channels, by the
    median absolute deviation; `above`: the share of channels with v̂ > v.
    """

    log_median: float
    spread: float
    above: float
    channels: int


@dataclass(frozen=True)
class InitialShare:
    """How far the estimates are the expected statistics with the initial ones, 0 and 1, mixed in.

    `share`: of the initial values, by least squares; `unexplained`: the ESM that the fit leaves,
    over the layer's own shift.
    """

    share: float
    unexplained: float


@dataclass(frozen=True)
class LayerAudit:
    """What was found about one layer; the figures are None where `status` is not "audited".

    `total_shift` is the estimation shift magnitude (ESM) in the deployed condition, `output_shift`
    the same weighted by γ², `mean_part` and `scale_part` its two (plain) parts with
    total_shift.plain² = mean_part² + scale_part². `count` is the number of elements a channel.
    `discrepancy` and `batch_noise` are at the mini-batch size of the Audit, with
    discrepancy² = shift² + batch_noise², the shift being that of the samples that fill whole
    mini-batches; where variances are near eps the noise can come out as 0.
    `left_out_squared_shift` holds D² with each group left out, for paired comparison, and
    `left_out_squared_output_shift` the same of the output shift. `own_shift` is the shift with
    everything upstream corrected, `own_output_shift` the same weighted by γ², `inherited_shift`
    what upstream adds, `attributed_shift` the (debiased) total, all on the subset that
    `Attribution` names: as computed, total ≤ own + inherited, up to eps. `variance_ratio` is in the
    deployed condition, `own_variance_ratio` in the corrected one. `concentration`: the share of the
    squared output shift that the twentieth of the channels with most of it carries.
    `initial_share`: in the corrected condition.
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
    variance_ratio: VarianceRatio | None = None
    own_variance_ratio: VarianceRatio | None = None
    concentration: float | None = None
    initial_share: InitialShare | None = None
    left_out_squared_output_shift: tuple[float, ...] = ()
