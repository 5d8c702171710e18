"""Figures of one Audit against the limits of the settings.

A limit is exceeded where the figure is above it beyond its noise. A figure that may or may not be
above it passes where the data are enough to rule out an excess of half the limit, and is
inconclusive where they are not: so the verdict does not hang on which side of the limit a figure
falls by chance, and too little data never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bnaudit.config import GateSettings
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.gate.ignores import Ignores
from bnaudit.findings.phrases import named, number, plural, root_mean_square, some_of, with_interval
from bnaudit.findings.policy import Policy
from bnaudit.findings.shifted import beyond, samples_needed
from bnaudit.results import SEVERITIES, Audit, Check, Estimate, LayerAudit, Outcome

EXCESS = 1.5
"""Times the limit: what has to be ruled out for a figure near its limit to pass."""

LIMITS = (
    "max_layer_esm",
    "max_total_esm",
    "max_disagreement",
    "min_accuracy",
    "max_cross_entropy",
)
"""The settings that are limits."""

SHIFT_RULE = "BN101"

MOST_SAMPLES = 10_000_000
"""A number of samples beyond which nobody would ask for them."""


def limits(audit: Audit, settings: GateSettings, ignores: Ignores) -> Iterator[Check]:
    """One check for each limit that is set."""
    if settings.max_layer_esm is not None:
        yield _layers(audit, settings.max_layer_esm, ignores)
    if settings.max_total_esm is not None:
        yield _total(audit, settings.max_total_esm)
    network = audit.network
    if settings.max_disagreement is not None:
        differs = None
        if network is not None and network.agreement is not None:
            agreeing = round(network.agreement * network.compared)
            differs = network.compared - agreeing, network.compared
        yield _share("max_disagreement", _DISAGREEMENT, differs, settings.max_disagreement)
    score = network.deployed if network is not None else None
    if settings.min_accuracy is not None:
        wrong = None
        if score is not None:
            wrong = score.samples - round(score.accuracy * score.samples), score.samples
        yield _share("min_accuracy", _ACCURACY, wrong, 1 - settings.min_accuracy)
    if settings.max_cross_entropy is not None:
        yield _loss(audit, settings.max_cross_entropy)


def open_layers(
    audit: Audit, settings: GateSettings, policy: Policy, ignores: Ignores
) -> Iterator[Check]:
    """Where BN101 counts: layers too noisy to say that their estimates are not wrong."""
    rule = find_rule(SHIFT_RULE)
    counts = settings.fail_on != "nothing" and SEVERITIES.index(
        policy.graded(rule, rule.severity)
    ) <= SEVERITIES.index(settings.fail_on)
    if not (counts and policy.wants(rule) and ignores.selects(SHIFT_RULE)):
        return
    threshold = policy.limits(rule)["shift"]
    layers = [layer for layer in audit.audited if layer.output_shift is not None]
    found = beyond([layer.output_shift for layer in layers], threshold)
    pairs = zip(layers, found, strict=True)
    doubtful = [x for x, above in pairs if not above and not _ruled_out(x, threshold)]
    if not doubtful or ignores.code(SHIFT_RULE) is not None:
        return
    doubtful = [x for x in doubtful if ignores.layer(x.name, SHIFT_RULE) is None]
    if doubtful:
        yield Check(
            kind="finding",
            name=SHIFT_RULE,
            title=rule.name,
            outcome="inconclusive",
            sentence=_doubt(doubtful, audit, threshold),
            severity=policy.graded(rule, rule.severity),
            layers=tuple(layer.name for layer in doubtful),
            remedy=_more(doubtful, audit, threshold),
            limit=threshold,
        )


def _layers(audit: Audit, limit: float, ignores: Ignores) -> Check:
    layers = [x for x in audit.audited if x.output_shift is not None]
    above = beyond([x.output_shift for x in layers], limit)
    over = [x for x, is_over in zip(layers, above, strict=True) if is_over]
    over = [x for x in over if ignores.layer(x.name, "max_layer_esm") is None]
    pairs = zip(layers, above, strict=True)
    doubtful = [x for x, is_over in pairs if not is_over and not _ruled_out(x, limit)]
    doubtful = [x for x in doubtful if ignores.layer(x.name, "max_layer_esm") is None]
    worst = max(over or doubtful or layers, key=lambda x: _shift(x).value, default=None)
    check = Check(
        kind="limit",
        name="max_layer_esm",
        title=f"output shift of a layer at most {number(limit)}",
        outcome="pass",
        sentence="No layer has an output shift to judge.",
        value=None if worst is None else _shift(worst).value,
        limit=limit,
    )
    if worst is None:
        return check
    of = plural(len(layers), "layer")
    figure = f"{with_interval(_shift(worst))} in {named(worst.name)}"
    if over:
        sentence = f"The output shift of {len(over)} of {of} exceeds {number(limit)}: {figure}."
        remedy = "Recalibrate where these are the data that the model is for; else mend the data."
        return _with(check, "fail", sentence, over, remedy)
    if doubtful:
        remedy = _more(doubtful, audit, limit)
        return _with(check, "inconclusive", _doubt(doubtful, audit, limit), doubtful, remedy)
    return _with(check, "pass", f"The largest of {of} is {figure}.", ())


def _total(audit: Audit, limit: float) -> Check:
    """The root mean square of the layers' output shifts, with limits from the layers' own.

    The layers are measured on the same samples: their errors are taken to add up in full.
    """
    shifts = [x.output_shift for x in audit.audited if x.output_shift is not None]
    check = Check(
        kind="limit",
        name="max_total_esm",
        title=f"output shift over all layers at most {number(limit)}",
        outcome="pass",
        sentence="No layer has an output shift to judge.",
        limit=limit,
    )
    if not shifts:
        return check
    whole = Estimate(
        value=root_mean_square([x.value for x in shifts]),
        plain=root_mean_square([x.plain for x in shifts]),
        low=_mean_root_of_limits([x.low for x in shifts]),
        high=_mean_root_of_limits([x.high for x in shifts]),
    )
    what = f"The output shift over {plural(len(shifts), 'layer')} (root mean square) is {{figure}}"
    return _judged(check, what, whole, limit)


def _share(name: str, wording: _Wording, counts: tuple[int, int] | None, limit: float) -> Check:
    """`counts`: (how many, of how many); None where the Audit has no such figure."""
    said = wording.shown(limit)
    check = Check("limit", name, f"{wording.title} {said}", "pass", "", limit=wording.own(limit))
    if counts is None:
        return _no_figure(check)
    from bnaudit.stats.paired import share

    found = share(*counts)
    estimate = Estimate(found.value, found.value, found.low, found.high)
    return _judged(check, wording.says.replace("{n}", f"{counts[1]:,}"), estimate, limit, wording)


def _loss(audit: Audit, limit: float) -> Check:
    title = f"{_PLAIN.title} {number(limit)} nats"
    check = Check("limit", "max_cross_entropy", title, "pass", "", limit=limit)
    score = audit.network.deployed if audit.network is not None else None
    if score is None:
        return _no_figure(check)
    if score.loss is None:
        sentence = f"The mean cross-entropy on {score.samples:,} samples is not finite."
        return _with(check, "fail", sentence, (), "Look for outputs that overflow.")
    error = score.loss_standard_error
    low, high = (None, None) if error is None else (score.loss - 2 * error, score.loss + 2 * error)
    low = None if low is None else max(0.0, low)
    estimate = Estimate(score.loss, score.loss, low, high)
    what = f"The mean cross-entropy on {score.samples:,} samples is {{figure}} nats"
    return _judged(check, what, estimate, limit)


@dataclass(frozen=True)
class _Wording:
    """How a figure and its limit are said. A figure that is judged by what is left to 1, as
    accuracy is by the wrong answers, is said the other way round."""

    title: str
    says: str
    shown: Callable[[float], str]
    beyond: str = "above"
    other_way_round: bool = False

    def own(self, value: float) -> float:
        """The figure itself, of the one that is judged."""
        return 1 - value if self.other_way_round else value

    def interval(self, low: float, high: float) -> str:
        ends = (high, low) if self.other_way_round else (low, high)
        return f"{self.shown(ends[0])} to {self.shown(ends[1])}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


_PLAIN = _Wording("cross-entropy at most", "", number)
_DISAGREEMENT = _Wording(
    "share of samples whose class differs under mini-batch statistics at most",
    "The class differs under mini-batch statistics on {figure} of {n} samples",
    _percent,
)
_ACCURACY = _Wording(
    "top-1 accuracy at least",
    "Top-1 accuracy on {n} samples is {figure}",
    lambda wrong: f"{100 * (1 - wrong):.4g}%",
    beyond="below",
    other_way_round=True,
)


def _judged(
    check: Check, says: str, estimate: Estimate, limit: float, wording: _Wording = _PLAIN
) -> Check:
    check = replace(check, value=wording.own(estimate.value))
    figure = wording.shown(estimate.value)
    if estimate.low is None or estimate.high is None:
        sentence = f"{says.replace('{figure}', figure)}: too few samples for an interval."
        return _with(check, "inconclusive", sentence, (), "Measure on more samples.")
    figure += f" (95% interval {wording.interval(estimate.low, estimate.high)})"
    said, limit_said = says.replace("{figure}", figure), wording.shown(limit)
    if estimate.low > limit:
        return _with(check, "fail", f"{said}, {wording.beyond} {limit_said}.", ())
    as_good_as_can_be = estimate.value == limit == 0  # no number of samples would do
    if estimate.high > EXCESS * limit and not as_good_as_can_be:
        sentence = f"{said}: whether it is {wording.beyond} {limit_said} is open."
        return _with(check, "inconclusive", sentence, (), "Measure on more samples.")
    return _with(check, "pass", f"{said}.", ())


def _no_figure(check: Check) -> Check:
    sentence = (
        f"{check.name} is set, and the measurement has no figure for it: the data have no labels, "
        "the outputs are no class scores, or there were fewer samples than one mini-batch."
    )
    remedy = "Give labelled data, or take the limit out of the settings."
    return _with(check, "inconclusive", sentence, (), remedy)


def _with(
    check: Check,
    outcome: Outcome,
    sentence: str,
    layers: Sequence[LayerAudit],
    remedy: str | None = None,
) -> Check:
    names = tuple(layer.name for layer in layers)
    return replace(check, outcome=outcome, sentence=sentence, layers=names, remedy=remedy)


def _ruled_out(layer: LayerAudit, limit: float) -> bool:
    """Whether an excess of half the limit is."""
    high = _shift(layer).high
    return high is not None and high <= EXCESS * limit


def _doubt(layers: Sequence[LayerAudit], audit: Audit, limit: float) -> str:
    samples = audit.data.samples if audit.data else 0
    names = some_of([layer.name for layer in layers])
    return (
        f"{plural(samples, 'sample')} {'is' if samples == 1 else 'are'} too few to tell whether "
        f"the output shift of {plural(len(layers), 'layer')} ({names}) exceeds {number(limit)}."
    )


def _more(layers: Sequence[LayerAudit], audit: Audit, limit: float) -> str:
    samples = audit.data.samples if audit.data else 0
    if any(_shift(layer).standard_error is None for layer in layers):
        return "Measure on more samples: at least 8, better 160 or more (8 groups of 20)."
    needed = max(_needed(_shift(layer), samples, limit) for layer in layers)
    if needed > MOST_SAMPLES:
        return "Choose another limit: a figure lies at this one, which no number of samples tells."
    available = audit.data.available if audit.data else None
    if available is not None and needed > available:
        return f"Measure on more samples: about {needed:,}, more than the {available:,} there are."
    return f"Measure on more samples: about {needed:,} (--samples)."


def _needed(estimate: Estimate, samples: int, limit: float) -> int:
    """Until an excess of half the limit is ruled out, or the limit is exceeded for certain."""
    middle = (1 + EXCESS) / 2 * limit
    return samples_needed(estimate, samples, limit if estimate.value > middle else EXCESS * limit)


def _shift(layer: LayerAudit) -> Estimate:
    assert layer.output_shift is not None
    return layer.output_shift


def _mean_root_of_limits(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return root_mean_square(known) if len(known) == len(values) else None
