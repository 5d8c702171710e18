"""The one-line verdict of an Audit."""

from __future__ import annotations

import math

from bnaudit.results import Audit, Estimate, LayerAudit, NetworkAudit, Verdict
from bnaudit.stats.significance import holm, upper_tail_p

SHIFT_THRESHOLD = 0.1
"""Output shift, in standard deviations, above which a layer's estimates are called wrong.

A tenth of a standard deviation is one hundredth of the activation's variance: well above what an
EMA of momentum 0.1 leaves at common batch sizes (0.01 to 0.05), well below what costs accuracy in
the sample models (0.3 and more). It is an error of the activations, not a forecast of accuracy.
"""

FAMILY_LEVEL = 0.05


def judge(audit: Audit) -> Verdict:
    """What the Audit says in one sentence.

    "broken" when a channel's stored statistics cannot be used at all; "shifted" when a layer's
    output shift exceeds `SHIFT_THRESHOLD` beyond its noise, family-wise 5% over layers (Holm);
    "healthy" when every layer's upper limit is below it; else "undecided", with the number of
    samples that would do. Layers without an interval are not judged, but named.
    """
    broken = [layer for layer in audit.audited if layer.undefined_channels]
    if broken:
        return Verdict("broken", _broken(broken) + _network_clause(audit.network))
    layers = [layer for layer in audit.audited if layer.output_shift is not None]
    if not layers:
        return Verdict("nothing-to-audit", _nothing(audit))
    judged = [layer for layer in layers if _shift(layer).standard_error is not None]
    if not judged:
        return Verdict("undecided", _too_few(audit))
    unjudged = [layer for layer in layers if layer not in judged]
    ending = _unjudged(unjudged) + _network_clause(audit.network)
    shifted = _beyond_threshold(judged)
    if shifted:
        return Verdict("shifted", _shifted(shifted, layers) + ending)
    open_layers = [layer for layer in judged if (_shift(layer).high or 0.0) >= SHIFT_THRESHOLD]
    if open_layers:
        return Verdict("undecided", _undecided(open_layers, layers, audit) + ending)
    worst = max(judged, key=lambda layer: _shift(layer).value)
    whole = "the only layer" if len(layers) == 1 else f"all {len(judged)} layers"
    sentence = (
        f"{'Undecided' if unjudged else 'Healthy'}: the output shift of {whole} is below "
        f"{SHIFT_THRESHOLD:g} (largest {_shift(worst).value:.3f}, {_named(worst)})"
    )
    return Verdict("undecided" if unjudged else "healthy", sentence + ending)


def _broken(layers: list[LayerAudit]) -> str:
    channels = sum(len(layer.undefined_channels) for layer in layers)
    return (
        f"Broken: {_count(channels, 'channel')} of {_count(len(layers), 'layer')} "
        f"(first: {_named(layers[0])}) cannot be normalised: running_var + eps is not positive, "
        "or a statistic is not finite"
    )


def _unjudged(layers: list[LayerAudit]) -> str:
    if not layers:
        return ""
    return (
        f"; {_named(layers[0])}{f' and {len(layers) - 1} more' if len(layers) > 1 else ''} got "
        "too few samples to be judged"
    )


def _named(layer: LayerAudit) -> str:
    """A name that is only a number, as nn.Sequential gives, would read like a figure."""
    return f"layer {layer.name}" if layer.name.replace(".", "").isdigit() else layer.name


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _shift(layer: LayerAudit) -> Estimate:
    assert layer.output_shift is not None
    return layer.output_shift


def _beyond_threshold(layers: list[LayerAudit]) -> list[LayerAudit]:
    """Layers whose squared output shift exceeds the threshold's square (one-sided, Holm)."""
    p_values = [
        upper_tail_p(e.value**2, e.standard_error or 0.0, e.groups, SHIFT_THRESHOLD**2)
        for e in map(_shift, layers)
    ]
    rejected = holm(p_values, FAMILY_LEVEL)
    return [layer for layer, shifted in zip(layers, rejected, strict=True) if shifted]


def _shifted(shifted: list[LayerAudit], layers: list[LayerAudit]) -> str:
    worst = max(shifted, key=lambda layer: _shift(layer).value)
    estimate = _shift(worst)
    verb = "normalises" if len(shifted) == 1 else "normalise"
    return (
        f"Shifted: {len(shifted)} of {_count(len(layers), 'layer')} {verb} by statistics that do "
        f"not fit these data (largest output shift {estimate.value:.3g}, 95% interval "
        f"{estimate.low:.3g} to {estimate.high:.3g}, {_named(worst)})"
    )


def _undecided(open_layers: list[LayerAudit], layers: list[LayerAudit], audit: Audit) -> str:
    samples = audit.data.samples if audit.data else 0
    needed = max(_samples_needed(_shift(layer), samples) for layer in open_layers)
    enough = (
        f"about {needed:,} samples would do"
        if needed < 100 * samples
        else ("their shift lies at the threshold itself")
    )
    return (
        f"Undecided: {len(open_layers)} of {_count(len(layers), 'layer')} may or may not exceed an "
        f"output shift of {SHIFT_THRESHOLD:g} on {_count(samples, 'sample')}; {enough}"
    )


def _samples_needed(estimate: Estimate, samples: int) -> int:
    """Standard errors shrink with √n: the n at which the interval clears the threshold."""
    distance = abs(estimate.value**2 - SHIFT_THRESHOLD**2)
    half = (estimate.high or 0.0) ** 2 - estimate.value**2
    if distance == 0:
        return 1_000_000_000
    exact = samples * max(1.0, (half / distance) ** 2)
    digits = 10 ** max(0, math.floor(math.log10(max(exact, 1))) - 1)
    return int(math.ceil(exact / digits) * digits)


def _too_few(audit: Audit) -> str:
    samples = audit.data.samples if audit.data else 0
    return (
        f"Undecided: {_count(samples, 'sample')} are too few for intervals; give at least 8, "
        "better 160 or more (8 groups of 20)"
    )


def _nothing(audit: Audit) -> str:
    if not audit.layers:
        return "Nothing to audit: the model has no BatchNorm layer"
    kinds = sorted({layer.status.replace("-", " ") for layer in audit.layers})
    return f"Nothing to audit: no layer has figures ({', '.join(kinds)})"


def _network_clause(network: NetworkAudit | None) -> str:
    """What the mini-batch condition adds: whether train and inference disagree."""
    if network is None or not network.compared:
        return "."
    size = network.batch_size
    deployed, other = network.deployed_compared, network.batch_statistics
    if deployed is None or other is None:
        if network.agreement is not None:
            return (
                f"; with mini-batch statistics at {size} the top-1 class agrees on "
                f"{network.agreement:.1%}."
            )
        return "."
    return (
        f"; top-1 accuracy {deployed.accuracy:.1%} with the estimates, {other.accuracy:.1%} with "
        f"mini-batch statistics at {size}."
    )
