"""The limits on the layers' output shift, and layers whose data are too few for a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnaudit.config import GateSettings
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.gate.held import EXCESS, held, settled
from bnaudit.findings.gate.ignores import Ignores
from bnaudit.findings.phrases import named, number, plural, root_mean_square, some_of, with_interval
from bnaudit.findings.policy import Policy
from bnaudit.findings.shift_differences import root_mean_square_of
from bnaudit.findings.shifted import beyond, samples_needed
from bnaudit.results import SEVERITIES, Audit, Check, Estimate, LayerAudit

SHIFT_RULE = "BN101"

MOST_SAMPLES = 10_000_000
"""A number of samples beyond which nobody would ask for them."""


def layer_limits(audit: Audit, settings: GateSettings, ignores: Ignores) -> Iterator[Check]:
    """One check for each limit on the layers that is set."""
    if settings.max_layer_esm is not None:
        yield _layers(audit, settings.max_layer_esm, ignores)
    if settings.max_total_esm is not None:
        yield _total(audit, settings.max_total_esm)


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
        return settled(check, "fail", sentence, over, remedy)
    if doubtful:
        remedy = _more(doubtful, audit, limit)
        return settled(check, "inconclusive", _doubt(doubtful, audit, limit), doubtful, remedy)
    return settled(check, "pass", f"The largest of {of} is {figure}.", ())


def _total(audit: Audit, limit: float) -> Check:
    """The root mean square of the layers' output shifts, √(mean of D² − b)."""
    layers = [x for x in audit.audited if x.output_shift is not None]
    check = Check(
        kind="limit",
        name="max_total_esm",
        title=f"output shift over all layers at most {number(limit)}",
        outcome="pass",
        sentence="No layer has an output shift to judge.",
        limit=limit,
    )
    if not layers:
        return check
    says = f"The output shift over {plural(len(layers), 'layer')} (root mean square) is {{figure}}"
    found = root_mean_square_of(layers, 0.95)
    if found is None:
        value = root_mean_square([_shift(x).value for x in layers])
        return held(check, says, Estimate(value, value), limit)
    return held(check, says, Estimate(found.value, found.value, found.low, found.high), limit)


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
