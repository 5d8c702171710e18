"""From what a layer saw to what the Audit says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

from torch import Tensor

from bnaudit.engine.books import LayerRecord
from bnaudit.engine.layers import BNLayer, counter
from bnaudit.results import (
    CallSite,
    ChannelTable,
    Estimate,
    LayerAudit,
    Status,
    VarianceRatio,
)
from bnaudit.stats.jackknife import Jackknife, jackknife
from bnaudit.stats.moments import Moments, leave_one_out, merge, pool, scatter
from bnaudit.stats.shift import (
    channel_mean,
    concentration,
    gamma_weighted_mean,
    log_variance_ratio,
    squared_shift,
    unnormalised_norms,
)


@dataclass(frozen=True)
class ChannelFigures:
    """The per-channel arrays of one layer, each (C,) float64."""

    name: str
    estimated_mean: Tensor
    estimated_var: Tensor
    expected_mean: Tensor
    expected_var: Tensor
    gamma: Tensor
    shift: Tensor


def describe_layer(layer: BNLayer, record: LayerRecord | None) -> LayerAudit:
    """What is known of a layer without figures: its state, its calls and its status."""
    status, note = _status(layer, record)
    stored = layer.module._buffers.get("running_mean")
    return LayerAudit(
        name=layer.name,
        kind=layer.kind,
        status=status,
        channels=layer.channels,
        note=note,
        aliases=layer.aliases,
        order=record.order if record else None,
        calls=record.calls if record else 0,
        empty_calls=record.empty_calls if record else 0,
        calls_per_forward=len(record.sites) if record else 0,
        eps=layer.eps,
        eps_source=layer.eps_source,
        momentum=layer.momentum,
        affine=layer.affine,
        frozen=layer.frozen,
        num_batches_tracked=counter(layer),
        dtype=str(stored.dtype).removeprefix("torch.") if stored is not None else None,
    )


def _status(layer: BNLayer, record: LayerRecord | None) -> tuple[Status, str | None]:
    if layer.role == "not-audited":
        return "not-audited", layer.note
    if layer.role == "batch-dependent":
        return "batch-dependent", (
            "track_running_stats=False: no estimate, it normalises by the batch at inference too"
        )
    if record is None:
        return "never-called", "the forward never reached it"
    if record.switched_to_training:
        return "batch-dependent", "the model puts it into training mode inside its forward"
    if record.empty_calls == record.calls:
        return "empty-input", "every input it got was empty"
    if not layer.verified:
        return "unverified", layer.note
    return "audited", layer.note


def audit_layer(
    layer: BNLayer, record: LayerRecord, final_groups: Tensor
) -> tuple[LayerAudit, ChannelFigures]:
    """The figures of an audited layer in the deployed condition.

    `final_groups` says into which jackknife group each group used while reading is pooled.
    """
    assert layer.eps is not None
    mean, var = record.estimated
    gamma = layer.gamma()
    by_site = [scatter(s.groups, final_groups, _parts(final_groups)) for s in record.sites]
    groups = reduce(merge, by_site)
    groups = groups.select(groups.count > 0)
    expected = pool(groups)
    shift = squared_shift(expected.mean[0], expected.var[0], mean, var, layer.eps)
    described = describe_layer(layer, record)
    channels = ChannelFigures(
        layer.name, mean, var, expected.mean[0], expected.var[0], gamma, shift.total.sqrt()
    )
    undefined = tuple(shift.total.isnan().nonzero().flatten().tolist())
    described = replace(
        described, undefined_channels=undefined, count=int(expected.count[0].item())
    )
    if len(undefined) == layer.channels:
        note = "no channel is defined: running_var + eps is not positive, or not finite, anywhere"
        return replace(described, note=note), channels

    found = shift_with_groups(groups, record.estimated, layer.eps, gamma)
    discrepancy, noise, batches = _discrepancy(record)
    norms = unnormalised_norms(expected.mean[0], expected.var[0], mean, var)
    defined = shift.total[~shift.total.isnan()]
    worst = int(shift.total.nan_to_num(-1.0).argmax())
    audit = replace(
        described,
        note=_calibration_note(record),
        total_shift=found.total,
        output_shift=found.output,
        mean_part=math.sqrt(float(channel_mean(shift.mean_part))),
        scale_part=math.sqrt(float(channel_mean(shift.scale_part))),
        worst_channel=worst,
        worst_channel_shift=math.sqrt(float(shift.total[worst])),
        p95_channel_shift=math.sqrt(float(defined.quantile(0.95))),
        unnormalised_mean_norm=norms[0],
        unnormalised_std_norm=norms[1],
        discrepancy=discrepancy,
        batch_noise=noise,
        discrepancy_batches=batches,
        call_sites=_call_sites(record, by_site) if len(by_site) > 1 else (),
        left_out_squared_shift=found.left_out,
        left_out_squared_output_shift=found.left_out_output,
        variance_ratio=variance_ratio(var, expected.var[0], layer.eps),
        concentration=concentration(shift.total, gamma),
    )
    return audit, channels


def _parts(final_groups: Tensor) -> int:
    return int(final_groups.max()) + 1


class ShiftFigures(NamedTuple):
    """Layer ESM and output shift with their jackknife; the square of each without each group.

    `output` is None where γ = 0 in every channel. What is left out is () where some are not finite.
    """

    total: Estimate
    output: Estimate | None
    left_out: tuple[float, ...] = ()
    left_out_output: tuple[float, ...] = ()


def shift_estimates(
    groups: Moments, estimated: tuple[Tensor, Tensor], eps: float, gamma: Tensor
) -> tuple[Estimate, Estimate | None, tuple[float, ...]]:
    """Layer ESM and output shift with their jackknife, and D² with each group left out."""
    return shift_with_groups(groups, estimated, eps, gamma)[:3]


def shift_with_groups(
    groups: Moments, estimated: tuple[Tensor, Tensor], eps: float, gamma: Tensor
) -> ShiftFigures:
    """The shift of a layer and what each group of samples does to it.

    `groups`: what the layer saw by group, none of them empty; `estimated`: (m̂, v̂), (C,) each.
    """
    expected = pool(groups)
    squared = squared_shift(expected.mean[0], expected.var[0], *estimated, eps).total
    plain = float(channel_mean(squared))
    plain_output = float(gamma_weighted_mean(squared, gamma))
    if len(groups.count) < 2:
        output = estimate_of(plain_output, None) if math.isfinite(plain_output) else None
        return ShiftFigures(estimate_of(plain, None), output)
    rest = leave_one_out(groups)
    without = squared_shift(rest.mean, rest.var, *estimated, eps).total
    left_out = channel_mean(without)
    total = estimate_of(plain, jackknife(plain, left_out, groups.count))
    if not math.isfinite(plain_output):  # γ = 0 in every channel: the layer outputs a constant
        return ShiftFigures(total, None, _finite(left_out))
    of_output = gamma_weighted_mean(without, gamma)
    output = estimate_of(plain_output, jackknife(plain_output, of_output, groups.count))
    return ShiftFigures(total, output, _finite(left_out), _finite(of_output))


def _finite(left_out: Tensor) -> tuple[float, ...]:
    return tuple(left_out.tolist()) if bool(left_out.isfinite().all()) else ()


def noise_floor(groups: Moments, eps: float) -> float | None:
    """The ESM that statistics taken from these samples have by their number alone.

    √b, with b the jackknife's bias of D² where the estimates are the pooled moments themselves.
    """
    if len(groups.count) < 2:
        return None
    whole, rest = pool(groups), leave_one_out(groups)
    own = whole.mean[0], whole.var[0]
    left_out = channel_mean(squared_shift(rest.mean, rest.var, *own, eps).total)
    known = jackknife(0.0, left_out, groups.count)
    return _root(known.bias) if known is not None else None


def estimate_of(squared: float, known: Jackknife | None) -> Estimate:
    """A root-mean-square figure from its square and what the jackknife knows of that."""
    plain = math.sqrt(squared)
    if known is None:
        return Estimate(value=plain, plain=plain)
    low, high = known.interval()
    return Estimate(
        value=_root(known.debiased),
        plain=plain,
        low=_root(low),
        high=_root(high),
        noise_floor=_root(known.bias),
        standard_error=known.standard_error,
        groups=known.groups,
    )


def _root(squared: float) -> float:
    return math.sqrt(max(0.0, squared))


def _discrepancy(record: LayerRecord) -> tuple[float | None, float | None, int]:
    """Discrepancy, batch noise and the number of mini-batches.

    The noise of a call site is what its discrepancy exceeds the shift of the same samples by. Of
    a layer called several times it is pooled over the sites, or the spread between them would
    count as noise.
    """
    batches = sum(site.mini_batches for site in record.sites)
    if batches == 0:
        return None, None, 0
    squared, noise = 0.0, 0.0
    for site in record.sites:
        if site.mini_batches:
            discrepancy = float(channel_mean(site.squared_discrepancy / site.mini_batches))
            share = site.mini_batches / batches
            squared += share * discrepancy
            noise += share * (discrepancy - _squared_shift_of(record, site.covered))
    return math.sqrt(squared), _root(noise), batches


def _squared_shift_of(record: LayerRecord, moments: Moments) -> float:
    """D² of the population that `moments` holds in parts."""
    assert record.layer.eps is not None
    whole = pool(moments)
    shift = squared_shift(whole.mean[0], whole.var[0], *record.estimated, record.layer.eps)
    return float(channel_mean(shift.total))


def variance_ratio(estimated: Tensor, expected: Tensor, eps: float) -> VarianceRatio | None:
    """How the estimated variances relate to the expected ones, (C,) each."""
    found = log_variance_ratio(estimated, expected, eps)
    if found is None:
        return None
    return VarianceRatio(found.median, found.spread, found.above, found.channels)


def _call_sites(record: LayerRecord, by_site: list[Moments]) -> tuple[CallSite, ...]:
    pooled = pool(reduce(merge, by_site))
    return tuple(
        CallSite(
            call,
            int(pool(moments).count[0].item()),
            math.sqrt(_squared_shift_of(record, moments)),
            _from_pooled(record.layer, moments, (pooled.mean[0], pooled.var[0])),
        )
        for call, moments in enumerate(by_site)
    )


def _from_pooled(layer: BNLayer, site: Moments, pooled: tuple[Tensor, Tensor]) -> Estimate | None:
    """The ESM of the pooled statistics at one call site; its interval takes them as given."""
    assert layer.eps is not None
    site = site.select(site.count > 0)
    if not len(site.count):
        return None
    return shift_estimates(site, pooled, layer.eps, layer.gamma())[0]


def _calibration_note(record: LayerRecord) -> str | None:
    if record.single_value:
        return "some mini-batches hold one value a channel: left out of the discrepancy"
    return None


def channel_table(figures: list[ChannelFigures]) -> ChannelTable:
    """All layers' per-channel arrays, one after another."""
    import numpy as np

    def joined(field: str) -> np.ndarray:
        arrays = [getattr(f, field).numpy() for f in figures]
        return np.concatenate(arrays) if arrays else np.empty(0)

    sizes = [len(f.shift) for f in figures]
    return ChannelTable(
        names=np.array([f.name for f in figures], dtype=str),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        estimated_mean=joined("estimated_mean"),
        estimated_var=joined("estimated_var"),
        expected_mean=joined("expected_mean"),
        expected_var=joined("expected_var"),
        gamma=joined("gamma"),
        shift=joined("shift"),
    )
