"""The limits on the layers' output shift, and layers whose data are too few for a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bnaudit.config import GateSettings
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.gate.held import held, ruled_out_from, settled, without_figure
from bnaudit.findings.gate.ignores import Ignores
from bnaudit.findings.phrases import named, number, plural, root_mean_square, some_of, with_interval
from bnaudit.findings.policy import Policy
from bnaudit.findings.shift_differences import root_mean_square_of
from bnaudit.findings.shifted import beyond, samples_needed
from bnaudit.results import SEVERITIES, Audit, Check, Estimate, LayerAudit

SHIFT_RULE = "BN101"


def layer_limits(audit: Audit, settings: GateSettings, ignores: Ignores) -> Iterator[Check]:
    """One check for each limit on the layers that is set."""
    if settings.max_layer_esm is not None:
        yield _layers(audit, settings.max_layer_esm, ignores)
    if settings.max_total_esm is not None:
        yield _total(audit, settings.max_total_esm, ignores)


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
    _, doubtful = _over_and_doubtful(audit, threshold)
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
    check = Check(
        kind="limit",
        name="max_layer_esm",
        title="largest output shift of a layer",
        outcome="pass",
        sentence="",
        limit=limit,
    )
    layers = _with_figures(audit)
    if not layers:
        return without_figure(check, _NO_SHIFT)
    wrong = _over_and_doubtful(audit, limit)
    ignored = {x.name for side in wrong for x in side if ignores.layer(x.name, check.name)}
    over, doubtful = ([x for x in side if x.name not in ignored] for side in wrong)
    judged = [x for x in layers if x.name not in ignored]
    worst = max(over or doubtful or judged or layers, key=lambda x: _shift(x).value)
    largest = _shift(worst).value
    check = replace(check, value=largest)
    of = plural(len(layers), "layer")
    figure = f"{with_interval(_shift(worst))} in {named(worst.name)}"
    if over:
        sentence = f"The output shift of {len(over)} of {of} exceeds {number(limit)}: {figure}."
        remedy = "Recalibrate where these are the data that the model is for; else mend the data."
        return settled(check, "fail", sentence, over, remedy)
    if doubtful:
        remedy = _more(doubtful, audit, limit)
        return settled(check, "inconclusive", _doubt(doubtful, audit, limit), doubtful, remedy)
    left_out = f"; the settings leave out {some_of(sorted(ignored))}" if ignored else ""
    if not judged:
        return settled(check, "pass", f"The settings leave out all of {of}.", ())
    certain = f": not above {number(limit)} for certain" if largest > limit else ""
    sentence = f"The largest of {plural(len(judged), 'layer')} is {figure}{certain}{left_out}."
    return settled(check, "pass", sentence, ())


_NO_SHIFT = "no layer has an output shift"


def _with_figures(audit: Audit) -> list[LayerAudit]:
    return [layer for layer in audit.audited if layer.output_shift is not None]


def _over_and_doubtful(audit: Audit, limit: float) -> tuple[list[LayerAudit], list[LayerAudit]]:
    """The layers above the limit beyond noise, and those that may be far above it."""
    layers = _with_figures(audit)
    above = beyond([layer.output_shift for layer in layers], limit)
    over = [layer for layer, is_over in zip(layers, above, strict=True) if is_over]
    names = {layer.name for layer in over}
    doubtful = [x for x in layers if x.name not in names and not _ruled_out(x, limit)]
    return over, doubtful


def _total(audit: Audit, limit: float, ignores: Ignores) -> Check:
    """The root mean square of the layers' output shifts, √(mean of D² − b)."""
    layers = [x for x in _with_figures(audit) if not ignores.everything(x.name)]
    check = Check(
        kind="limit",
        name="max_total_esm",
        title="output shift over all layers",
        outcome="pass",
        sentence="",
        limit=limit,
    )
    if not layers and _with_figures(audit):
        return settled(check, "pass", "The settings leave out all layers.", ())
    if not layers:
        return without_figure(check, _NO_SHIFT)
    says = f"The output shift over {plural(len(layers), 'layer')} (root mean square) is {{figure}}"
    found = root_mean_square_of(layers, 0.95)
    if found is None:
        value = root_mean_square([_shift(x).value for x in layers])
        return held(check, says, Estimate(value, value), limit)
    return held(check, says, Estimate(found.value, found.value, found.low, found.high), limit)


def _ruled_out(layer: LayerAudit, limit: float) -> bool:
    """Whether an excess of half the limit is."""
    high = _shift(layer).high
    return high is not None and high <= ruled_out_from(limit)


def _doubt(layers: Sequence[LayerAudit], audit: Audit, limit: float) -> str:
    samples = audit.data.samples if audit.data else 0
    whose = named(layers[0].name) if len(layers) == 1 else plural(len(layers), "layer")
    return (
        f"{plural(samples, 'sample')} {'is' if samples == 1 else 'are'} too few to tell whether "
        f"the output shift of {whose} exceeds {number(limit)}."
    )


def _more(layers: Sequence[LayerAudit], audit: Audit, limit: float) -> str:
    samples = audit.data.samples if audit.data else 0
    if any(_shift(layer).standard_error is None for layer in layers):
        return "Measure on more samples: at least 8, better 160 or more (8 groups of 20)."
    needed = max(_needed(_shift(layer), samples, limit) for layer in layers)
    from bnaudit.stats.paired import MOST_SAMPLES

    if needed > MOST_SAMPLES:
        return "Choose another limit: a figure lies at this one, which no number of samples tells."
    available = audit.data.available if audit.data else None
    if available is not None and needed > available:
        return f"Measure on more samples: about {needed:,}, more than the {available:,} there are."
    return f"Measure on more samples: about {needed:,} (--samples)."


def _needed(estimate: Estimate, samples: int, limit: float) -> int:
    """Until an excess of half the limit is ruled out, or the limit is exceeded for certain."""
    far = ruled_out_from(limit)
    return samples_needed(estimate, samples, limit if estimate.value > (limit + far) / 2 else far)


def _shift(layer: LayerAudit) -> Estimate:
    assert layer.output_shift is not None
    return layer.output_shift
