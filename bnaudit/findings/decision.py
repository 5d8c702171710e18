"""Whether a recalibration's new statistics are to be used: what its verification says."""

from __future__ import annotations

import math
from dataclasses import replace

from bnaudit.findings.shifted import SHIFT_THRESHOLD
from bnaudit.results import Change, Decision, Verification
from bnaudit.stats.paired import mcnemar, samples_to_settle

SIGNIFICANCE = 0.05

SMALL_GAIN = 0.02
"""A gain of accuracy that would not explain why a model fails: 2 points."""


def decide(verification: Verification | None, *, changed_layers: int, forced: bool) -> Decision:
    """Accept or refuse the new statistics, in at most three sentences.

    With labels they are accepted for a significant gain of accuracy (McNemar's exact test at
    `SIGNIFICANCE`), or when the lower limit of the difference lies above −`max_loss`. Without
    labels, when the layers' shift on the verification data went down significantly. Without
    verification they are accepted, and the sentence says that nothing proves that they help.
    Refused where outputs are not finite with them. `forced` overrides a refusal; with no layer
    changed there is nothing to override.
    """
    if changed_layers == 0:
        return Decision(
            "nothing-to-change",
            accept=False,
            sentence="Nothing to change: no layer was recalibrated, the statistics stay as they "
            "are.",
        )
    if verification is None:
        return Decision(
            "unverified",
            accept=True,
            sentence="Not verified: nothing proves that the new statistics help. Give labelled "
            "data that took no part in the calibration (--verify, or verify=) to measure it.",
        )
    if verification.not_finite:
        decision = _no_answers(verification)
    elif verification.accuracy is None and verification.broken_before is not None:
        decision = _repaired(verification)
    elif verification.accuracy is not None:
        decision = _by_accuracy(verification, verification.accuracy)
    else:
        decision = _by_shift(verification)
    if forced and not decision.accept:
        sentence = f"{decision.sentence} Used in spite of this, as asked (--force)."
        return replace(decision, forced=True, sentence=sentence)
    return decision


def _by_accuracy(found: Verification, accuracy: Change) -> Decision:
    margin = f"{_number(100 * found.max_loss)} points"
    p_value = _p_value(found)
    significant = p_value < SIGNIFICANCE
    p_text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
    test = f"McNemar's exact {p_text}"
    figures = _accuracy_figures(found, accuracy)
    diagnosis = _diagnosis(found, accuracy)
    if significant and accuracy.difference > 0:
        sentence = f"Accepted: {figures}, a significant gain ({test}).{_shift_sentence(found)}"
        return Decision("gain", accept=True, sentence=sentence)
    if accuracy.low is not None and accuracy.low > -found.max_loss:
        sentence = (
            f"Accepted: {figures}: no significant gain ({test}), but a loss of more than the "
            f"allowed {margin} is ruled out.{diagnosis}"
        )
        return Decision("no-loss", accept=True, sentence=sentence)
    if accuracy.high is not None and accuracy.high < -found.max_loss:
        sentence = f"Not accepted: {figures}: a loss of more than the allowed {margin}.{diagnosis}"
        return Decision("loss", accept=False, sentence=sentence)
    needed, settle = _to_settle(found)
    if significant:
        sentence = (
            f"Not accepted: {figures}: a significant loss ({test}), not shown to stay within the "
            f"allowed {margin}; {settle}.{diagnosis}"
        )
        return Decision("loss", accept=False, sentence=sentence, samples_needed=needed)
    sentence = (
        f"Not accepted: {figures}: neither is the gain significant ({test}), nor is a loss of more "
        f"than the allowed {margin} ruled out; {settle}.{diagnosis}"
    )
    return Decision("undecided", accept=False, sentence=sentence, samples_needed=needed)


def _accuracy_figures(found: Verification, accuracy: Change) -> str:
    digits = _digits(accuracy, found.max_loss)
    interval = "95% interval withheld"
    if accuracy.low is not None and accuracy.high is not None:
        low, high = (f"{100 * limit:+.{digits}f}" for limit in (accuracy.low, accuracy.high))
        interval = f"95% interval {low} to {high}"
    return (
        f"top-1 accuracy {100 * accuracy.before:.{digits}f}% -> {100 * accuracy.after:.{digits}f}%"
        f", {100 * accuracy.difference:+.{digits}f} points ({interval}), on "
        f"{_samples(found.labelled)}"
    )


def _digits(accuracy: Change, max_loss: float) -> int:
    """As many decimals as show the interval's width, and on which side of the margin it ends."""
    if accuracy.low is None or accuracy.high is None:
        return 1
    for digits in (1, 2, 3):
        ends = [round(100 * limit, digits) for limit in (accuracy.low, accuracy.high)]
        wide = ends[1] - ends[0] > 2.5 * 10**-digits or accuracy.low == accuracy.high
        if wide and round(-100 * max_loss, digits) not in ends:
            return digits
    return 4


def _p_value(found: Verification) -> float:
    if found.p_value is not None:
        return found.p_value
    if found.only_before_correct is None or found.only_after_correct is None:
        return 1.0
    return mcnemar(found.only_before_correct, found.only_after_correct)


def _to_settle(found: Verification) -> tuple[int | None, str]:
    """How many verification samples would settle it, and that in words."""
    before, after = found.only_before_correct, found.only_after_correct
    if before is None or after is None or found.labelled == 0:
        return None, "more verification samples may settle it"
    needed = samples_to_settle(before, after, found.labelled, found.max_loss)
    if needed is None:
        return None, (
            "the difference seen lies at the allowed loss itself, where no practical number of "
            "verification samples settles it"
        )
    return (
        needed,
        f"at this difference about {needed:,} verification samples would settle it, either way",
    )


def _diagnosis(found: Verification, accuracy: Change) -> str:
    """Where no gain was found: what the shift says of the reason, in one sentence."""
    if _rose(found):
        return _shift_sentence(found)
    largest = found.largest_shift
    if largest is None:
        return ""
    if largest.before <= SHIFT_THRESHOLD:
        return (
            " The statistics fitted these data already (largest layer shift "
            f"{_number(largest.before)})."
        )
    if largest.after > largest.before / 2:
        return _shift_sentence(found)
    fitted = f" The statistics did not fit these data (largest layer shift {_arrow(largest)}), but "
    if accuracy.high is None or accuracy.high > SMALL_GAIN:
        return f"{fitted}so few samples do not tell whether that costs accuracy."
    return (
        f"{fitted}that is not what costs accuracy: the weights have adapted to it, or the trouble "
        "lies elsewhere; look at the data, the preprocessing and the weights."
    )


def _by_shift(found: Verification) -> Decision:
    shift = found.layer_shift
    unknown = f"{_without(found)} it cannot be known whether {_outputs(found)}"
    if shift is None or shift.high is None or shift.low is None:
        figure = f" ({_arrow(shift)})" if shift else ""
        sentence = (
            f"Not accepted: {_samples(found.data.samples)} do not show whether the layers' shift "
            f"went down{figure}. {unknown}."
        )
        return Decision("worse-fit", accept=False, sentence=sentence)
    figures = f"{_shift_figures(shift)}, on {_samples(found.data.samples)}"
    if shift.high < 0:
        sentence = (
            f"Accepted: the statistics fit better, {figures}. {unknown}: a better fit is no proof."
        )
        return Decision("better-fit", accept=True, sentence=sentence)
    if shift.low > 0:
        sentence = f"Not accepted: the statistics fit worse, {figures}.{_cause()} {unknown}."
    else:
        sentence = (
            f"Not accepted: no significantly better fit, {figures}.{_already(found)} {unknown}."
        )
    return Decision("worse-fit", accept=False, sentence=sentence)


def _repaired(found: Verification) -> Decision:
    sentence = (
        "Accepted: with the old statistics activations are not finite "
        f"({found.broken_before}); with the new ones they are, on "
        f"{_samples(found.data.samples)}. Without labels it cannot be known how accurate the model "
        "is now."
    )
    return Decision("better-fit", accept=True, sentence=sentence)


def _no_answers(found: Verification) -> Decision:
    return Decision(
        "not-finite",
        accept=False,
        sentence=f"Not accepted: with the new statistics the outputs of {found.not_finite:,} of "
        f"{_samples(found.data.samples)} are not finite, though the activations of the BatchNorm "
        "layers are. Look at the weights behind the last one, and at overflow in half precision.",
    )


def _without(found: Verification) -> str:
    return "Without labels" if found.agreement is not None else "Without class scores and labels"


def _outputs(found: Verification) -> str:
    """What labels would tell, and what is known of the outputs without them."""
    if found.agreement is not None:
        share = found.agreement
        return (
            f"accuracy rose or fell (the top-1 class stays the same on {share.value:.1%} of the "
            f"samples, 95% interval {share.low:.1%} to {share.high:.1%})"
        )
    if found.relative_rms is not None:
        return f"the outputs got better (they moved by {_number(found.relative_rms)}, relative RMS)"
    return "the outputs got better or worse"


def _already(found: Verification) -> str:
    largest = found.largest_shift
    if largest is None or largest.before > SHIFT_THRESHOLD:
        return ""
    return f" They fitted already (largest layer shift {_number(largest.before)})."


def _rose(found: Verification) -> bool:
    shift = found.layer_shift
    return shift is not None and shift.low is not None and shift.low > 0


def _shift_sentence(found: Verification) -> str:
    """What became of the shift on the verification data, with the reason where it rose."""
    shift = found.layer_shift
    if shift is None:
        return ""
    if _rose(found):
        return (
            f" The statistics fit these data worse than before: {_shift_figures(shift)}.{_cause()}"
        )
    return f" On these data {_shift_figures(shift)}."


def _cause() -> str:
    return " The calibration data differ from the verification data, or are too few."


def _shift_figures(shift: Change) -> str:
    interval = ""
    if shift.low is not None and shift.high is not None:
        interval = f" (95% interval of the difference {shift.low:+.3g} to {shift.high:+.3g})"
    return f"the layers' shift went {shift.before:.3g} -> {shift.after:.3g}{interval}"


def _arrow(change: Change) -> str:
    return f"{_number(change.before)} -> {_number(change.after)}"


def _number(value: float) -> str:
    """Two significant digits, none of them in an exponent: `0.28`, `0.0051`, `12`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _samples(number: int) -> str:
    return f"{number:,} sample" if number == 1 else f"{number:,} samples"
