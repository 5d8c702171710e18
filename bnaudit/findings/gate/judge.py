"""The verdict of the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bnaudit.config import GateSettings
from bnaudit.findings.gate.counted import ACCEPTED, NON_FINITE_OUTPUTS, Counted, counted
from bnaudit.findings.gate.ignores import LAYER_CHECKS, Ignores
from bnaudit.findings.gate.layer_limits import SHIFT_RULE, open_layers
from bnaudit.findings.gate.limits import LIMITS, limits
from bnaudit.findings.gate.regressions import regressions, worse_layers
from bnaudit.findings.phrases import named, plural, some_of, with_interval
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results import OUTCOMES, Audit, Changes, Check, Finding, Gate, Outcome, Side, Waived

SEVERITY_WORDS = {
    "error": "an error",
    "warning": "a warning or an error",
    "info": "a finding",
    "nothing": "a finding",
}


def judge_gate(
    audit: Audit,
    settings: GateSettings,
    policy: Policy = DEFAULT,
    *,
    subject: Side,
    changes: Changes | None = None,
) -> Gate:
    """Hold an Audit against the settings, and against a baseline where `changes` from it are given.

    Fail: a finding that counts, a limit that is exceeded beyond noise, a figure that got worse than
    in the baseline beyond tolerance and noise. Inconclusive: nothing fails, but the data are too
    few to tell. `subject`: what the Audit is of. The findings of the Audit have to be those of
    `policy`. Raises `InputError` for settings that name what does not exist.
    """
    ignores = Ignores(settings, audit.layers)
    if not audit.audited:
        return _without_layers(audit, settings, ignores, subject, changes)
    others: list[Check] = []
    if changes is None:
        found = counted(audit.findings, settings, ignores)
        if not any(check.name == SHIFT_RULE for check in found.checks):
            others += open_layers(audit, settings, policy, ignores)
    else:
        others += regressions(changes, settings.tolerance, ignores)
        worse = worse_layers(changes, settings.tolerance)
        any_worse = bool(worse) or any(check.outcome == "fail" for check in others)
        found = counted(audit.findings, settings, ignores, changes, worse, any_worse=any_worse)
    others += [*limits(audit, settings, ignores), *_outputs(audit, found)]
    if not found.checks and not any(check.kind == "finding" for check in others):
        others.append(_no_finding(settings, found, changes))
    return _gate((*found.checks, *others), found, settings, subject, changes, ignores, audit)


def accepting(audit: Audit, settings: GateSettings, *, subject: Side) -> Gate:
    """The verdict on a state that becomes the baseline: its findings are accepted, limits hold.

    Inconclusive where the samples are too few to compare anything with it.
    """
    ignores = Ignores(settings, audit.layers)
    found = counted(audit.findings, settings, ignores)
    if not audit.audited:
        return _without_layers(audit, settings, ignores, subject, None)
    others = (*found.others, *(waived.finding for waived in found.waived))
    accepted = tuple(Waived(x, ACCEPTED) for x in audit.findings if x not in others)
    found = Counted((), (*found.waived, *accepted), found.others)
    checks = [*limits(audit, settings, ignores), *_outputs(audit, found)]
    checks.append(_enough(audit) or _no_finding(settings, found, None))
    return _gate(checks, found, settings, subject, None, ignores, audit)


def _enough(audit: Audit) -> Check | None:
    """An inconclusive check where there is no interval to compare with."""
    known = (layer.output_shift for layer in audit.audited if layer.output_shift is not None)
    if any(shift.standard_error is not None for shift in known):
        return None
    return Check(
        kind="measurement",
        name="samples",
        title="samples for a baseline",
        outcome="inconclusive",
        sentence="The samples are too few for intervals: no gate against this baseline could tell "
        "anything.",
        remedy="Measure on more samples: at least 8, better 160 or more (8 groups of 20).",
    )


def _without_layers(
    audit: Audit,
    settings: GateSettings,
    ignores: Ignores,
    subject: Side,
    changes: Changes | None,
) -> Gate:
    found = counted(audit.findings, settings, ignores, changes)
    checks = (_nothing(audit), *found.checks, *_outputs(audit, found))
    verdict = _gate(checks, found, settings, subject, changes, ignores, audit)
    return replace(verdict, notes=(*verdict.notes, *_not_judged(settings)))


def _outputs(audit: Audit, found: Counted) -> Iterator[Check]:
    """A failure where outputs are not finite, whatever findings count; once only."""
    if audit.network is None or not audit.network.not_finite:
        return
    if any(check.name == NON_FINITE_OUTPUTS for check in found.checks):
        return
    yield Check(
        kind="measurement",
        name="finite",
        title="outputs are finite",
        outcome="fail",
        sentence=f"The outputs of {plural(audit.network.not_finite, 'sample')} are not finite.",
        remedy="Look at the layers behind the last BatchNorm layer, and for overflow in half "
        "precision.",
    )


def not_finite(
    sentence: str,
    layer: str | None,
    settings: GateSettings,
    subject: Side,
    findings: Sequence[Finding] = (),
) -> Gate:
    """The verdict on a model whose activations are not finite: there is no Audit of it.

    `findings`: what its stored state gives away.
    """
    check = Check(
        kind="measurement",
        name="finite",
        title="activations are finite",
        outcome="fail",
        sentence=sentence,
        layers=() if layer is None else (layer,),
    )
    ignores = Ignores(settings, ())
    found = counted(findings, settings, ignores)
    verdict = _gate((check, *found.checks), found, settings, subject, None, ignores)
    return replace(verdict, unused_ignores=())  # nothing was measured that they could be needed for


def _gate(
    checks: Sequence[Check],
    found: Counted,
    settings: GateSettings,
    subject: Side,
    changes: Changes | None,
    ignores: Ignores,
    audit: Audit | None = None,
) -> Gate:
    ordered = tuple(sorted(checks, key=lambda check: OUTCOMES.index(check.outcome)))
    outcome: Outcome = ordered[0].outcome if ordered else "pass"
    tolerated = outcome == "inconclusive" and settings.inconclusive == "pass"
    return Gate(
        outcome=outcome,
        sentence=_sentence(outcome, ordered, audit, tolerated=tolerated),
        subject=subject,
        checks=ordered,
        waived=found.waived,
        findings=found.others,
        unused_ignores=ignores.unused(_not_run(settings, changes)),
        changes=changes,
        notes=audit.notes if audit else (),
        exit_code=0 if outcome == "pass" or tolerated else 1,
    )


def _not_run(settings: GateSettings, changes: Changes | None) -> tuple[str, ...]:
    """The checks of single layers that there was no occasion for."""
    ran = {"max_layer_esm": settings.max_layer_esm is not None, "layer_esm": changes is not None}
    return tuple(name for name in LAYER_CHECKS if not ran[name])


def _nothing(audit: Audit) -> Check:
    sentence = audit.verdict.sentence if audit.verdict else "Nothing to audit."
    return Check("measurement", "layers", "layers to measure", "pass", sentence)


def _not_judged(settings: GateSettings) -> Iterator[str]:
    names = [name for name in LIMITS if getattr(settings, name) is not None]
    if names:
        yield f"without layers to measure, limits are not judged: {', '.join(names)}"


def _no_finding(settings: GateSettings, found: Counted, changes: Changes | None) -> Check:
    new = " new" if changes is not None else ""
    what = SEVERITY_WORDS[settings.fail_on]
    if settings.fail_on == "nothing":
        sentence = 'Findings do not count (fail_on = "nothing").'
    elif found.waived:
        sentence = f"No finding that counts; {plural(len(found.waived), 'finding')} left out."
    else:
        sentence = f"No{new} finding that is {what}."
    return Check("finding", "findings", "findings", "pass", sentence)


def _sentence(
    outcome: Outcome, checks: Sequence[Check], audit: Audit | None, *, tolerated: bool
) -> str:
    chosen = [check for check in checks if check.outcome == outcome]
    names = some_of(list(Counter(_named(check) for check in chosen)))
    if outcome == "fail":
        of = plural(len(checks), "check")
        return f"{len(chosen)} of {of} {'fails' if len(chosen) == 1 else 'fail'}: {names}."
    if outcome == "inconclusive":
        ending = ' This counts as a pass (inconclusive = "pass").' if tolerated else ""
        return f"These data do not tell: {names}.{ending}"
    verdict = f" {audit.verdict.sentence}" if audit and audit.verdict else ""
    if audit and audit.verdict and audit.verdict.level == "undecided":
        verdict = _undecided(audit)
    return f"{plural(len(chosen), 'check')} passed.{verdict}"


def _undecided(audit: Audit) -> str:
    """What is certain where a verdict on every layer is not."""
    known = [x for x in audit.audited if x.output_shift is not None and x.output_shift.high]
    if not known:
        return ""
    worst = max(known, key=lambda x: (x.output_shift and x.output_shift.high) or 0.0)
    assert worst.output_shift is not None
    return (
        f" The largest output shift is {with_interval(worst.output_shift)} in {named(worst.name)}, "
        "by the upper end of the interval."
    )


def _named(check: Check) -> str:
    if check.kind == "finding":
        return f"{check.name} {check.title}"
    return f"{check.name} against the baseline" if check.kind == "regression" else check.name
