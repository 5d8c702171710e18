"""Data that are not preprocessed as in training: BN301."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from bnaudit.findings.phrases import plural, some_of
from bnaudit.findings.rule import RULES, Found, Limits, Threshold, rule
from bnaudit.results import Audit, Candidate, Preprocessing

CODE = "BN301"

AS_GOOD = 1.1
"""A mistake that leaves no more than this many times the least shift is named as well."""

AS_GOOD_AT_MOST = 2.0
"""The same where much is left: it tells less about what the model wants."""


@rule(
    CODE,
    "wrong-preprocessing",
    "error",
    Audit,
    means="The data reach the model in another form than in training: channels in another order, "
    "another scale, a normalisation that is missing, is another one or was applied twice.",
    computed="The shift of the first three layers in the deployed condition, as the root mean "
    "square of their output shifts `√(Σγ²d²/Σγ²)`, on at most 256 samples. Where it is large, the "
    "possible mistakes are tried: how the tensors were made (0 to 1, 0 to 255, −1 to 1, ImageNet's "
    "mean and deviation, twice, on 0 to 255, divided by 255 twice) against how they should have "
    "been, with the channels as they are and in reverse order; arrays that were reshaped instead "
    "of transposed; rows and columns, dark and bright swapped. A way of making them counts where "
    "it makes pixels between 0 and 1; where one makes whole levels `k/255` alone, only that one. "
    "Each mistake is undone on the same samples and gets the shift that it leaves, with a paired "
    "jackknife interval. The one that leaves least is named if it lowers the shift for certain, "
    "family-wise 5% over all that were tried (Holm), and leaves no more than data usually do. An "
    "order of channels, a layout and dark for bright have to make the class scores of the network "
    "less undecided too (entropy, paired interval): tinted or bright images can look like them to "
    "the first layers alone. Statistics of the first layer that are off by one factor in all "
    "channels look like a scale of the data: that cannot be told apart.",
    matters="A different camera, contrast or noise moves the first layers too, and recalibration "
    "is made for that. A mistake is another matter: recalibrated statistics fit it, accuracy "
    "comes back in part at best, and the model is then wrong for correct data.",
    remedy="Mend the data, and do not recalibrate on them.",
    source="XNOR-Net issue 17; chess-recognition issue 5; Huang 2022 (estimation shift)",
    thresholds=(
        Threshold(
            "shift",
            0.1,
            "Shift at the first layers, in standard deviations, that the interval's lower limit "
            "has to exceed; as of the verdict on any layer. The gentlest mistake that was measured "
            "gives 0.3: channels in reverse order on a CIFAR-10 ResNet.",
        ),
        Threshold(
            "left",
            0.3,
            "What may be left of it with the mistake undone. Two CIFAR-10 ResNets have 0.22 to "
            "0.29 on correct JPEG images; what lowers the shift of noise, tints and bright images "
            "by accident mostly leaves more.",
        ),
        Threshold(
            "share",
            0.1,
            "Or this share of the shift as given: pixels from 0 to 255 give shifts of 100, and "
            "data that differ otherwise as well may keep more than `left`.",
        ),
        Threshold(
            "most",
            1.0,
            "What may be left at most, in standard deviations, whatever the share: more than that "
            "is no sound network on sound data.",
        ),
        Threshold(
            "range",
            0.75,
            "The range of pixel values, of 0 to 1, from which `left` counts. A batch of images "
            "fills it; where one does not, its contrast is low, and another scale lowers the shift "
            "without being the mistake: only `share` counts then.",
        ),
        Threshold(
            "lowered",
            0.05,
            "The share by which undoing a mistake has to lower the shift. Channels in reverse "
            "order reach 0.06 to 0.35; rows and columns swapped in photographs 0.02.",
        ),
        Threshold(
            "alone",
            0.8,
            "The same for an order of channels, a layout or dark for bright where the network "
            "has no class scores to bear it out: images a fifth brighter look inverted at 0.4, "
            "those of a single class at 0.56.",
        ),
    ),
)
def wrong_preprocessing(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The first layers' shift goes once a mistake is undone."""
    if audit.preprocessing is not None:
        found = explained(audit.preprocessing, limits)
        if found is not None:
            yield found


def explained(preprocessing: Preprocessing, limits: Limits | None = None) -> Found | None:
    """The mistake that explains the shift at the first layers; None where none does.

    `limits` None: the rule's own thresholds.
    """
    from bnaudit.stats.significance import holm

    if limits is None:
        limits = {threshold.name: threshold.default for threshold in RULES[CODE].thresholds}
    tried = preprocessing.candidates
    if preprocessing.low is None or preprocessing.low <= limits["shift"]:
        return None
    certain = holm([candidate.p_value for candidate in tried])
    scored = any(candidate.entropy is not None for candidate in tried)
    explaining = [
        candidate
        for candidate, lowers in zip(tried, certain, strict=True)
        if lowers
        and _leaves_little(candidate, limits)
        and _is_borne_out(candidate, limits, scored=scored)
    ]
    if not explaining:
        return None
    best = min(explaining, key=lambda candidate: candidate.shift.after)
    factor = AS_GOOD if best.shift.after <= limits["left"] else AS_GOOD_AT_MOST
    others = [c for c in explaining if c.shift.after <= factor * best.shift.after and c != best]
    return Found(
        _sentence(preprocessing, best, others),
        evidence={"mistake": best.mistake, "mend": best.mend, **asdict(preprocessing)},
        remedy=f"Mend the data (--transform, or the loader), and do not recalibrate on them: "
        f"{best.mend}.",
    )


def _leaves_little(candidate: Candidate, limits: Limits) -> bool:
    shift = candidate.shift
    usual = min(limits["share"] * shift.before, limits["most"])
    low, high = candidate.pixel_range
    if high - low >= limits["range"] or candidate.pixels is not None:
        usual = max(usual, limits["left"])
    return shift.after <= min(usual, (1 - limits["lowered"]) * shift.before)


def _is_borne_out(candidate: Candidate, limits: Limits, *, scored: bool) -> bool:
    """Whether the network says so too, where the pixels themselves are to be wrong.

    `scored`: it has class scores.
    """
    pixels, entropy = candidate.pixels, candidate.entropy
    if pixels is None:
        return True
    if not scored:
        return pixels.after <= (1 - limits["alone"]) * pixels.before
    surer = entropy is not None and entropy.high is not None and entropy.high < 0
    return surer and pixels.after <= (1 - limits["lowered"]) * pixels.before


def _sentence(found: Preprocessing, best: Candidate, others: list[Candidate]) -> str:
    layers = plural(len(found.layers), "BatchNorm layer")
    difference = ""
    if best.shift.low is not None and best.shift.high is not None:
        low, high = _figure(-best.shift.high), _figure(-best.shift.low)
        difference = f", {low} to {high} less with 95% confidence"
    said = (
        f"The data look preprocessed wrongly: {best.mistake}. Undone, the shift at the first "
        f"{layers} ({some_of(found.layers)}) falls from {_figure(best.shift.before)} to "
        f"{_figure(best.shift.after)}{difference} ({plural(found.samples, 'sample')})."
    )
    if others:
        said += f" As good an explanation: {'; '.join(c.mistake for c in others)}."
    return said


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
