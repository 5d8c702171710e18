"""BN101, BN106, BN107: how far the estimates are from what the layers see."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings import commands
from bnaudit.findings.phrases import evidence, named, names_of, plural, with_interval
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.shifted import SHIFT_THRESHOLD, samples_needed, shifted_layers
from bnaudit.results import Audit, LayerAudit


@rule(
    "BN101",
    "estimation-shift",
    "warning",
    Audit,
    means="Layers normalise by running statistics that are not those of their inputs on these "
    "data: at inference their activations are off by so many standard deviations.",
    computed="For a channel with estimates m̂, v̂ and expected statistics m, v (mean and biased "
    "variance of the layer's input over the data, everything upstream in eval mode): "
    "`d² = ((m − m̂)/ŝ)² + (√v/ŝ − √v/s)²`, s² = v + ε. The output shift of a layer is "
    "`√(Σγ²d² / Σγ²)`, debiased by a jackknife over groups of samples. The rule fires for the "
    "layers whose squared output shift exceeds the threshold's square: one-sided tests, Holm's "
    "procedure, family-wise 5% over all layers.",
    matters="The weights after the layer were trained for normalised inputs. The error is handed "
    "on and adds up from layer to layer (Huang 2022). It is an error of activations, not a "
    "forecast of accuracy: the network figures say what the outputs make of it.",
    remedy="Recalibrate the statistics; data that took no part decide whether it helps. Where the "
    "data are not those that the model is for, mend the data instead.",
    source="Huang et al. 2022 (arXiv:2203.10778), section 3; Wu & Johnson 2021 "
    "(arXiv:2105.07576), section 3",
    thresholds=(
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "Output shift, in standard deviations. A tenth is one hundredth of the activation's "
            "variance: well above what an EMA of momentum 0.1 leaves at common batch sizes (0.01 "
            "to 0.05), well below what costs accuracy in the sample models (0.3 and more). The "
            "verdict uses the same.",
        ),
    ),
    unless=("BN301",),
)
def estimation_shift(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The layers whose output shift is beyond the threshold and beyond noise."""
    shifted = shifted_layers(audit, limits["shift"])
    if not shifted:
        return
    worst = max(shifted, key=_output_shift)
    assert worst.output_shift is not None
    verb = "normalises" if len(shifted) == 1 else "normalise"
    total = len(audit.audited)
    which = f"{len(shifted)} of {plural(total, 'layer')}"
    if len(shifted) == total:
        which = f"All {total} layers" if total > 1 else "The only layer"
    yield Found(
        f"{which} {verb} by statistics that do not fit these data: output shift "
        f"{with_interval(worst.output_shift)} in {named(worst.name)}, the largest.",
        names_of(shifted),
        {layer.name: evidence(layer.output_shift) for layer in shifted},
        command=commands.recalibrate(audit),
    )


@rule(
    "BN106",
    "few-channels",
    "info",
    Audit,
    means="The shift of a layer is that of a few of its channels; the others fit.",
    computed="The share of `Σγ²d²` that the twentieth of the channels with most of it carries "
    "(at least one channel), in layers that BN101 names and that have at least 16 channels.",
    matters="Channels whose variance is close to ε, or that hardly ever fire, have statistics "
    "that a few samples decide. One such channel can dominate a layer's figures.",
    remedy="Look at these channels: a larger eps, or pruning them, may serve better than new "
    "statistics.",
    source="torchvision issue 1947; detectron2 issue 3160",
    thresholds=(
        Threshold(
            "share",
            0.8,
            "Share, 0 to 1, of the squared shift. A twentieth of equal channels carries 0.05; in "
            "the sample models, whose shifts concern all channels, at most 0.5.",
        ),
        Threshold("shift", SHIFT_THRESHOLD, "Output shift, as in BN101.", same_as="BN101"),
    ),
    unless=("BN301",),
)
def few_channels(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Shifted layers where a twentieth of the channels carries nearly all of it."""
    layers = [
        layer
        for layer in shifted_layers(audit, limits["shift"])
        if layer.channels >= 16 and (layer.concentration or 0.0) >= limits["share"]
    ]
    if not layers:
        return
    worst = max(layers, key=lambda layer: layer.concentration or 0.0)
    few = max(1, worst.channels // 20)
    yield Found(
        f"In {plural(len(layers), 'layer')} a few channels carry the shift: in {named(worst.name)} "
        f"{plural(few, 'channel')} of {worst.channels} {'has' if few == 1 else 'have'} "
        f"{worst.concentration:.0%} of it.",
        names_of(layers),
        {
            layer.name: {
                "share": layer.concentration,
                "worst_channel": layer.worst_channel,
                "worst_channel_shift": layer.worst_channel_shift,
            }
            for layer in layers
        },
    )


@rule(
    "BN107",
    "too-few-samples",
    "info",
    Audit,
    means="The data are too few to say whether some layers' estimates fit.",
    computed="A layer is open when it has no interval (fewer than 8 groups of samples), or when "
    "its interval reaches the threshold and BN101 does not name it. Standard errors shrink with "
    "√n, which gives the number of samples that would do.",
    matters="A verdict on too few samples is a coin's: neither a pass nor a failure means much.",
    remedy="Measure on more samples.",
    source="Busing et al. 1999 (jackknife of unequal groups)",
    thresholds=(
        Threshold("shift", SHIFT_THRESHOLD, "Output shift, as in BN101.", same_as="BN101"),
    ),
    unless=("BN301",),
)
def too_few_samples(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Layers that may or may not exceed the threshold."""
    threshold = limits["shift"]
    shifted = names_of(shifted_layers(audit, threshold))
    layers = [
        layer
        for layer in audit.audited
        if layer.output_shift is not None
        and layer.name not in shifted
        and (layer.output_shift.high is None or layer.output_shift.high >= threshold)
    ]
    if not layers or audit.data is None:
        return
    samples = audit.data.samples
    sizes = [
        samples_needed(layer.output_shift, samples, threshold)
        for layer in layers
        if layer.output_shift is not None and layer.output_shift.high is not None
    ]
    without_interval = len(sizes) < len(layers)
    needed = max([*sizes, *([max(160, 2 * samples)] if without_interval else [])])
    settles = without_interval or needed < 100 * samples
    enough = "their shift lies at the threshold itself, which no number settles"
    available = audit.data.available
    if settles:
        more = ", more than there are" if available is not None and needed > available else ""
        enough = f"about {needed:,} would do{more}"
    option = "all" if available is not None and available <= needed else str(needed)
    can = settles and (available is None or available > samples)
    yield Found(
        f"{plural(samples, 'sample')} {'is' if samples == 1 else 'are'} too few to judge "
        f"{plural(len(layers), 'layer')}: whether their output shift exceeds {threshold:g} is open"
        f"; {enough}.",
        names_of(layers),
        {"samples": samples, "needed": needed if settles else None},
        remedy=None if settles else "Nothing: look at their figures, or move the threshold.",
        command=commands.measure_again(audit, "--samples", option) if can else None,
    )


def _output_shift(layer: LayerAudit) -> float:
    return layer.output_shift.value if layer.output_shift is not None else 0.0
