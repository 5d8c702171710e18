"""BN104, BN105, BN108, BN109: what made the estimates wrong, as their figures tell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict

from bnaudit.findings import commands
from bnaudit.findings.phrases import evidence, named, names_of, number, plural, with_interval
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.shifted import SHIFT_THRESHOLD, beyond
from bnaudit.results import Audit, LayerAudit


@rule(
    "BN104",
    "bessel-bias",
    "warning",
    Audit,
    means="The running variances are too large by the factor n/(n − 1), channel by channel: "
    "PyTorch's `running_var` averages the *unbiased* variances of mini-batches, training uses the "
    "biased ones. At small n, the values a channel has in a mini-batch, that matters, from "
    "the second layer on: the first one sees no normalised input.",
    computed="For each layer the median over channels of ln(v̂/v), everything upstream corrected, "
    "against its standard error. The layers concerned have ln(v̂/v) above the threshold and above "
    "three standard errors, with v̂ > v in at least three quarters of the channels. The n that it "
    "implies, `1/(1 − v/v̂)`, over the values that one sample gives, is the batch size of training: "
    "at least half of the layers have to be concerned, and to agree on it within a factor of 1.5.",
    matters="A chain of 20 layers at batch 64 shrinks the output to 0.854 although all statistics "
    "have converged. The factor is the same in every layer and multiplies up.",
    remedy="Recalibrate: the population's variance has no such factor. Train with larger batches "
    "per device where you can.",
    source="PyTorch issues 19916 and 100048; Ioffe & Szegedy 2015 (arXiv:1502.03167), Algorithm 2",
    thresholds=(
        Threshold(
            "log_ratio",
            0.01,
            "ln(v̂/v) of a layer, which is about 1/n: n below 100. Smaller factors are not told "
            "from an EMA's noise.",
        ),
    ),
    unless=("BN301",),
)
def bessel_bias(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The same small batch explains the ratio of variances in most layers."""
    implied = {
        layer.name: batch
        for layer in audit.audited
        if (batch := _implied_batch(layer, audit, limits["log_ratio"])) is not None
    }
    told = [layer for layer in audit.audited if layer.own_variance_ratio is not None]
    if not implied or 2 * len(implied) < len(told):
        return
    batch = statistics.median(implied.values())
    agreeing = {n: b for n, b in implied.items() if batch / 1.5 <= b <= 1.5 * batch}
    if 2 * len(agreeing) < len(told) or batch < 0.75:
        return
    layers = [layer for layer in audit.audited if layer.name in agreeing]
    worst = max(layers, key=_own_log_ratio)
    yield Found(
        f"In {len(layers)} of {plural(len(told), 'layer')} the running variances are too large by "
        f"n/(n − 1), in nearly all channels (by {math.expm1(_own_log_ratio(worst)):.1%} in "
        f"{named(worst.name)}), as training with mini-batches of about {max(1, round(batch))} "
        "samples leaves them.",
        names_of(layers),
        {
            "batch_size": batch,
            "log_ratio": {layer.name: _own_log_ratio(layer) for layer in layers},
        },
        command=commands.recalibrate(audit),
    )


def _own_log_ratio(layer: LayerAudit) -> float:
    return layer.own_variance_ratio.log_median if layer.own_variance_ratio is not None else 0.0


def _implied_batch(layer: LayerAudit, audit: Audit, least: float) -> float | None:
    """The batch size at which n/(n − 1) is the layer's ratio of variances."""
    ratio = layer.own_variance_ratio
    if ratio is None or audit.data is None or layer.count == 0:
        return None
    # The median's standard error is 1.2533 times the mean's.
    error = 1.2533 * ratio.spread / math.sqrt(ratio.channels)
    if ratio.log_median < max(least, 3 * error) or ratio.above < 0.75:
        return None
    per_sample = layer.count / audit.data.samples
    return 1 / -math.expm1(-ratio.log_median) / per_sample


@rule(
    "BN105",
    "variance-collapse",
    "warning",
    Audit,
    means="The inputs of the layers vary far less than their running variances say, the more so "
    "the deeper: the sign of weights that were averaged, merged or interpolated.",
    computed="Of ln(v̂/v), the median over the channels of each layer: in the corrected condition "
    "its median over the layers is above the threshold (each layer's own weights collapse), and in "
    "the deployed condition it grows with depth (mean over the last third of the layers above that "
    "over the first third, and rank correlation with depth of at least 0.5).",
    matters="Averaging weights averages out what the networks disagree on, and the variance of the "
    "activations with it; statistics that were averaged along stay as large as before, and the "
    "signal fades layer by layer. Recalibration gives most of it back.",
    remedy="Recalibrate after averaging or merging, and let held-out data decide: now and then it "
    "hurts.",
    source="Jordan et al. 2022 (REPAIR, arXiv:2211.08403); git-re-basin-pytorch issue 3; "
    "timgaripov/swa issue 8",
    thresholds=(
        Threshold(
            "log_ratio",
            0.2,
            "Median over layers of the own ln(v̂/v): the running variance is 22% too large. Data "
            "of lower contrast reach less than 0.1 beyond the first layer.",
        ),
        Threshold("growth", 0.1, "How much the deployed ln(v̂/v) grows from first to last third."),
    ),
    unless=("BN301", "BN007", "BN004"),
)
def variance_collapse(audit: Audit, limits: Limits) -> Iterator[Found]:
    """v ≪ v̂ in every layer by itself, more with depth."""
    layers = [
        layer
        for layer in audit.audited
        if layer.variance_ratio is not None and layer.own_variance_ratio is not None
    ]
    if len(layers) < 3:
        return
    own = statistics.median(_own_log_ratio(layer) for layer in layers)
    deployed = [r.log_median for layer in layers if (r := layer.variance_ratio) is not None]
    third = len(layers) // 3
    first, last = statistics.fmean(deployed[:third]), statistics.fmean(deployed[-third:])
    if own < limits["log_ratio"] or last - first < limits["growth"]:
        return
    correlation = _rank_correlation_with_depth(deployed)
    if correlation < 0.5:
        return
    yield Found(
        f"The layers' inputs vary less than the running variances say, more with depth: v̂/v is "
        f"{number(math.exp(first))} over the first third of the layers and "
        f"{number(math.exp(last))} over the last, and {number(math.exp(own))} by each layer's own "
        "weights, as after averaging or merging weights.",
        names_of(layers),
        {
            "ratio": {
                layer.name: math.exp(layer.variance_ratio.log_median)
                for layer in layers
                if layer.variance_ratio is not None
            },
            "own_ratio": {layer.name: math.exp(_own_log_ratio(layer)) for layer in layers},
            "spearman": correlation,
        },
        command=commands.recalibrate(audit),
    )


def _rank_correlation_with_depth(values: list[float]) -> float:
    from scipy.stats import spearmanr

    if len(set(values)) < 2:
        return 0.0
    return float(spearmanr(range(len(values)), values).statistic)


@rule(
    "BN108",
    "estimates-wrong",
    "warning",
    Audit,
    means="The estimates do not fit the data that the model was trained on either: they are wrong, "
    "whatever the other data are.",
    computed="With `--train-data`: the output shift of each layer on the training data, in eval "
    "mode, tested as in BN101. BN302 says whether the data moved as well.",
    matters="An EMA that lagged, small batches, weights that changed afterwards: the remedy is to "
    "estimate anew, on the training data (Wu 2021, section 3: PreciseBN).",
    remedy="Recalibrate on the training data, or on the data that the model will see; held-out "
    "data decide.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), sections 3 and 5",
    thresholds=(
        Threshold("shift", SHIFT_THRESHOLD, "Output shift, as in BN101.", same_as="BN101"),
    ),
    unless=("BN301",),
)
def estimates_wrong(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Shift beyond threshold and noise on the training data themselves."""
    trained = audit.trained_on
    if trained is None:
        return
    wrong = beyond([layer.shift for layer in trained.layers], limits["shift"])
    layers = [layer for layer, is_wrong in zip(trained.layers, wrong, strict=True) if is_wrong]
    if not layers:
        return
    worst = max(layers, key=lambda layer: layer.shift.value)
    moved = beyond([layer.moved for layer in trained.layers], limits["shift"])
    also = "; the data moved as well (BN302)" if any(moved) else "; the data did not move"
    yield Found(
        f"The estimates are wrong: on the training data too, {len(layers)} of "
        f"{plural(len(trained.layers), 'layer')} {'is' if len(layers) == 1 else 'are'} off (output "
        f"shift {with_interval(worst.shift)} in {named(worst.name)}, the largest){also}.",
        tuple(layer.name for layer in layers),
        {layer.name: evidence(layer.shift) for layer in layers},
        command=commands.recalibrate_on_training_data(audit),
    )


@rule(
    "BN109",
    "pulled-toward-initial",
    "warning",
    Audit,
    means="The estimates are the statistics of the data with the initial values, mean 0 and "
    "variance 1, mixed in: the moving average had not warmed up when training ended.",
    computed="With everything upstream corrected, the share a for which (1 − a)·(m, v) + a·(0, 1) "
    "is nearest to (m̂, v̂), by least squares. It fires for layers whose own shift is beyond the "
    "threshold of BN101, and of which the mixture leaves little.",
    matters="With momentum μ the initial values weigh (1 − μ)^n after n batches: 82% after 200 "
    "batches at 0.001, the usual mistake of copying TensorFlow's 0.999. The weights are fine.",
    remedy="Recalibrate; for the next training a larger momentum, or PreciseBN at its end.",
    source="chemprop issue 607, keras issue 3949; Wu & Johnson 2021 (arXiv:2105.07576), section 3",
    thresholds=(
        Threshold(
            "share",
            0.05,
            "a, 0 to 1. Less than a twentieth of initial values shifts no layer by much.",
        ),
        Threshold(
            "unexplained",
            0.3,
            "What the mixture leaves of the own shift, 0 to 1. At most 0.03 in a model that had "
            "not warmed up, at least 0.4 in every layer of others.",
        ),
        Threshold("shift", SHIFT_THRESHOLD, "Own output shift, as in BN101.", same_as="BN101"),
    ),
    unless=("BN301", "BN004", "BN007"),
)
def pulled_toward_initial(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Most layers that are off are off by a share of the initial values."""
    off = beyond([layer.own_output_shift for layer in audit.audited], limits["shift"])
    own = [layer for layer, is_off in zip(audit.audited, off, strict=True) if is_off]
    layers = [
        (layer, layer.initial_share)
        for layer in own
        if layer.initial_share is not None
        and limits["share"] <= layer.initial_share.share <= 1
        and layer.initial_share.unexplained <= limits["unexplained"]
    ]
    if not layers or 2 * len(layers) < len(own):
        return
    shares = [found.share for _, found in layers]
    which = f"{min(shares):.0%} to {max(shares):.0%}" if len(layers) > 1 else f"{shares[0]:.0%}"
    yield Found(
        f"The estimates of {len(layers)} of {plural(len(audit.audited), 'layer')} are those of the "
        f"data with {which} of the initial values, mean 0 and variance 1, mixed in: the average "
        "had not warmed up.",
        tuple(layer.name for layer, _ in layers),
        {layer.name: asdict(found) for layer, found in layers},
        command=commands.recalibrate(audit),
    )
