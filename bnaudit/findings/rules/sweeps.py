"""BN120 to BN124: what sweeps over samples, priors and momenta say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bnaudit.findings.commands import IN_PYTHON, recalibrate_of
from bnaudit.findings.phrases import plural
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.results import Change
from bnaudit.results.sweep import Conclusion, Sweep, SweepPoint

LOSS_GAIN = Threshold(
    "gain",
    0.02,
    "Share of the loss, 0 to 1, that has to be gained, beside an interval that excludes 0: with "
    "many samples smaller gains are certain and do not matter.",
)

_USUAL = Threshold(
    "usual",
    1000,
    "Calibration samples that `bnaudit recalibrate` takes unless told otherwise (Wu 2021 finds "
    "1,000 to 10,000 enough on ImageNet).",
)


@rule(
    "BN120",
    "calibration-samples-suffice",
    "info",
    Sweep,
    means="So many calibration samples suffice: more change neither the accuracy nor the "
    "statistics by anything that matters.",
    computed="`bnaudit sweep samples`: exact statistics of random subsets of n samples, tried on "
    "held-out data. The smallest n such that it and every larger one loses at most 0.5 points of "
    "accuracy against the largest, and leaves a residual ESM (root mean square over layers) of at "
    "most 0.05. `certain` in the evidence says whether something larger was tried and the limits "
    "of the 95% intervals, over held-out samples and draws, satisfy this too.",
    matters="Few unlabelled samples are cheap where the data have moved; too few give statistics "
    "that are noisy themselves (Wu 2021, section 3; Schneider 2020).",
    remedy="Recalibrate on that many or more.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 3; Schneider et al. 2020 "
    "(arXiv:2006.16971)",
    thresholds=(_USUAL,),
)
def samples_suffice(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """As many as the default, or fewer."""
    enough = sweep.conclusion("enough-samples")
    if enough is None or enough.value is None or enough.value > limits["usual"]:
        return
    yield Found(
        enough.sentence,
        (),
        evidence_of(enough),
        command=_recalibrate(sweep, f"--samples {enough.value:.0f}"),
    )


@rule(
    "BN121",
    "calibration-samples-too-few",
    "warning",
    Sweep,
    means="The usual number of calibration samples is too few for this network and these data.",
    computed="As BN120, where no number that was tried suffices, or more than the threshold is "
    "needed.",
    matters="Statistics of too few samples are noisy, most in layers with few values a channel, "
    "and what they cost adds up over depth (Wu 2021, section 3; Huang 2022, section 3).",
    remedy="Give more calibration samples (--samples all), or a prior that keeps a share of the "
    "old statistics (bnaudit sweep prior). A residual that no longer falls says that the held-out "
    "data are not like the calibration data.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 3",
    thresholds=(_USUAL,),
)
def samples_too_few(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """None suffices, or only more than the default."""
    enough = sweep.conclusion("enough-samples")
    if enough is None or (enough.value is not None and enough.value <= limits["usual"]):
        return
    yield Found(enough.sentence, (), evidence_of(enough))


@rule(
    "BN122",
    "prior-helps",
    "info",
    Sweep,
    means="With so few calibration samples it helps to keep a share of the checkpoint's own "
    "statistics.",
    computed="`bnaudit sweep prior`: weight n/(N + n) on the statistics of n samples. N is chosen "
    "by the loss on one half of the labelled held-out samples; on the other half the loss is lower "
    "than with N = 0 by at least the threshold, and the 95% interval of the change (paired "
    "bootstrap) lies below 0, with no certain loss of accuracy.",
    matters="Old statistics are biased where the data moved, new ones of few samples are noisy; in "
    "between lies the best (Schneider 2020, section 3). More samples make the prior superfluous.",
    remedy="Recalibrate with this prior, or on more samples; data that took no part decide.",
    source="Schneider et al. 2020 (arXiv:2006.16971), section 3 and equation 3",
    thresholds=(LOSS_GAIN,),
)
def prior_helps(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """The best strength is above 0, and certainly better."""
    best = sweep.conclusion("best") if sweep.kind == "prior" else None
    if best is None or not best.value or not gains(best, limits["gain"]):
        return
    samples = sweep.calibration.samples if sweep.calibration is not None else 0
    options = f"--samples {samples} --prior {best.value:g}"
    yield Found(best.sentence, (), evidence_of(best), command=_recalibrate(sweep, options))


_MOMENTUM = (
    "`bnaudit sweep momentum`: the framework's moving average over the calibration data, from the "
    "checkpoint's statistics on, tried on held-out data beside exact statistics of the same "
    "samples. At the layers' own momentum the loss is higher than with exact statistics by at "
    "least the threshold, and the 95% interval of the difference lies above 0; "
)

_COST = Threshold(
    "cost",
    0.005,
    "Accuracy, 0 to 1, that has to be lost, beside an interval that excludes 0; where less is "
    "lost, or nobody knows, the finding is information.",
)


@rule(
    "BN123",
    "momentum-lags",
    "warning",
    Sweep,
    means="At the layers' own momentum the moving average lags: in so many mini-batches it does "
    "not reach the statistics of the data.",
    computed=_MOMENTUM + "a larger momentum does better.",
    matters="(1 − momentum)ⁿ of the old statistics is left after n mini-batches. In training the "
    "weights move meanwhile, so that the average trails them (Wu 2021, section 3: statistics of "
    "the whole population are better where the average has not converged).",
    remedy="Recompute the statistics after training (bnaudit recalibrate), or train with a larger "
    "momentum, or longer.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 3; chemprop issue 607, keras issue 3949",
    thresholds=(LOSS_GAIN, _COST),
)
def momentum_lags(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """A larger momentum would do better."""
    yield from _momentum(sweep, limits, larger=1)


@rule(
    "BN124",
    "momentum-follows-batches",
    "warning",
    Sweep,
    means="At the layers' own momentum the moving average follows the last few mini-batches, "
    "whose statistics are noisy.",
    computed=_MOMENTUM + "a smaller momentum does better.",
    matters="The average weighs about 2/momentum − 1 mini-batches. With small ones that is too "
    "few samples (Wu 2021, section 3).",
    remedy="Recompute the statistics after training (bnaudit recalibrate), or train with a smaller "
    "momentum; check that the framework's convention is not the reverse (1 − momentum).",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 3; transformers issue 19454",
    thresholds=(LOSS_GAIN, _COST),
)
def momentum_follows(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """A smaller momentum would do better."""
    yield from _momentum(sweep, limits, larger=-1)


def _momentum(sweep: Sweep, limits: Limits, larger: int) -> Iterator[Found]:
    """The current momentum against exact; `larger`: 1 where the best is larger, −1 smaller."""
    best = sweep.conclusion("best") if sweep.kind == "momentum" else None
    if best is None or best.value is None or sweep.current is None:
        return
    if (best.value - sweep.current) * larger <= 0:
        return
    point = next((p for p in sweep.of("held-out") if p.value == sweep.current), None)
    if point is None or not _worse_than_exact(point, limits["gain"]):
        return
    accuracy = point.accuracy_from_exact
    costly = (
        accuracy is not None
        and accuracy.difference <= -limits["cost"]
        and accuracy.high is not None
        and accuracy.high < 0
    )
    updates = sweep.updates
    said = "" if updates is None else f" after {plural(updates, 'mini-batch', 'mini-batches')}"
    change = point.loss_from_exact
    assert change is not None
    yield Found(
        f"At the layers' own momentum, {sweep.current:g}, the moving average{said} has a loss of "
        f"{change.after:.3f} on the held-out data, exact statistics have {change.before:.3f}"
        f"{_limits(change)}; {_best_words(best, sweep.current)}.",
        (),
        evidence_of(best) | {"current": sweep.current, "loss": asdict(change), "updates": updates},
        severity=None if costly else "info",
        command=_recalibrate(sweep, ""),
    )


def _best_words(best: Conclusion, current: float) -> str:
    """Which momentum does best, and whether that is certain."""
    better = f"momentum {best.value:g} does better than {current:g}"
    if best.significant:
        return better
    return f"{better} on the half of the data that chooses, which the other half does not show"


def _worse_than_exact(point: SweepPoint, share: float) -> bool:
    change = point.loss_from_exact
    if change is None or change.low is None or change.low <= 0:
        return False
    return change.difference >= share * change.after


def gains(best: Conclusion, share: float) -> bool:
    """Whether the loss falls for certain by this share, and the accuracy does not for certain."""
    loss, accuracy = best.loss_gain, best.gain
    if not best.significant or loss is None or -loss.difference < share * loss.before:
        return False
    return accuracy is None or accuracy.high is None or accuracy.high >= 0


def _limits(change: Change) -> str:
    if change.low is None or change.high is None:
        return ""
    return f" (95% interval of the difference {change.low:+.3f} to {change.high:+.3f})"


def evidence_of(conclusion: Conclusion) -> dict[str, Any]:
    """A conclusion as plain data."""
    return {
        "value": conclusion.value,
        "candidates": list(conclusion.candidates),
        "certain": conclusion.significant,
        "accuracy": asdict(conclusion.gain) if conclusion.gain is not None else None,
        "loss": asdict(conclusion.loss_gain) if conclusion.loss_gain is not None else None,
    }


def _recalibrate(sweep: Sweep, options: str) -> str:
    if sweep.request is None:
        return IN_PYTHON
    return f"{recalibrate_of(sweep.request)} {options}".strip()
