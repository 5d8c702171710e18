"""The one-line verdict of an Audit."""

from __future__ import annotations

from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.phrases import named, plural
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.findings.shifted import beyond, samples_needed
from bnaudit.results import Audit, Estimate, LayerAudit, NetworkAudit, Verdict


def judge(audit: Audit, policy: Policy = DEFAULT) -> Verdict:
    """What the Audit says in one sentence, with the threshold of BN101.

    "broken" when a channel's stored statistics cannot be used at all, or outputs are not finite;
    "shifted" when a layer's output shift exceeds the threshold beyond its noise, family-wise 5%
    over layers (Holm); "healthy" when every layer's upper limit is below it; else "undecided", with
    the number of samples that would do. Layers without an interval are not judged, but named.
    """
    threshold = policy.limits(find_rule("BN101"))["shift"]
    broken = [layer for layer in audit.audited if layer.undefined_channels]
    if broken:
        return Verdict("broken", _broken(broken) + _network_clause(audit.network))
    if audit.network is not None and audit.network.not_finite:
        return Verdict("broken", _no_answer(audit.network.not_finite, audit))
    layers = [layer for layer in audit.audited if layer.output_shift is not None]
    if not layers:
        return Verdict("nothing-to-audit", _nothing(audit))
    judged = [layer for layer in layers if _shift(layer).standard_error is not None]
    if not judged:
        return Verdict("undecided", _too_few(audit))
    unjudged = [layer for layer in layers if layer not in judged]
    ending = _unjudged(unjudged) + _network_clause(audit.network)
    found = beyond([layer.output_shift for layer in judged], threshold)
    shifted = [layer for layer, is_shifted in zip(judged, found, strict=True) if is_shifted]
    if shifted:
        return Verdict("shifted", _shifted(shifted, layers) + ending)
    open_layers = [layer for layer in judged if (_shift(layer).high or 0.0) >= threshold]
    if open_layers:
        return Verdict("undecided", _undecided(open_layers, layers, audit, threshold) + ending)
    worst = max(judged, key=lambda layer: _shift(layer).value)
    whole = "the only layer" if len(layers) == 1 else f"all {len(judged)} layers"
    sentence = (
        f"{'Undecided' if unjudged else 'Healthy'}: the output shift of {whole} is below "
        f"{threshold:g} (largest {_shift(worst).value:.3f}, {named(worst.name)})"
    )
    return Verdict("undecided" if unjudged else "healthy", sentence + ending)


def _broken(layers: list[LayerAudit]) -> str:
    channels = sum(len(layer.undefined_channels) for layer in layers)
    return (
        f"Broken: {plural(channels, 'channel')} of {plural(len(layers), 'layer')} "
        f"(first: {named(layers[0].name)}) cannot be normalised: running_var + eps is not "
        "positive, or a statistic is not finite"
    )


def _no_answer(not_finite: int, audit: Audit) -> str:
    samples = audit.data.samples if audit.data else not_finite
    return (
        f"Broken: the outputs of {not_finite:,} of {plural(samples, 'sample')} are not finite, "
        "though the activations of the BatchNorm layers are."
    )


def _unjudged(layers: list[LayerAudit]) -> str:
    if not layers:
        return ""
    return (
        f"; {named(layers[0].name)}{f' and {len(layers) - 1} more' if len(layers) > 1 else ''} got "
        "too few samples to be judged"
    )


def _shift(layer: LayerAudit) -> Estimate:
    assert layer.output_shift is not None
    return layer.output_shift


def _shifted(shifted: list[LayerAudit], layers: list[LayerAudit]) -> str:
    worst = max(shifted, key=lambda layer: _shift(layer).value)
    estimate = _shift(worst)
    verb = "normalises" if len(shifted) == 1 else "normalise"
    return (
        f"Shifted: {len(shifted)} of {plural(len(layers), 'layer')} {verb} by statistics that do "
        f"not fit these data (largest output shift {estimate.value:.3g}, 95% interval "
        f"{estimate.low:.3g} to {estimate.high:.3g}, {named(worst.name)})"
    )


def _undecided(
    open_layers: list[LayerAudit], layers: list[LayerAudit], audit: Audit, threshold: float
) -> str:
    samples = audit.data.samples if audit.data else 0
    needed = max(samples_needed(_shift(layer), samples, threshold) for layer in open_layers)
    enough = (
        f"about {needed:,} samples would do"
        if needed < 100 * samples
        else ("their shift lies at the threshold itself")
    )
    return (
        f"Undecided: {len(open_layers)} of {plural(len(layers), 'layer')} may or may not exceed an "
        f"output shift of {threshold:g} on {plural(samples, 'sample')}; {enough}"
    )


def _too_few(audit: Audit) -> str:
    samples = audit.data.samples if audit.data else 0
    return (
        f"Undecided: {plural(samples, 'sample')} {'is' if samples == 1 else 'are'} too few for "
        "intervals; give at least 8, better 160 or more (8 groups of 20)"
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
