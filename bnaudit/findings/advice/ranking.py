"""The remedies of all families for an Audit, ranked."""

from __future__ import annotations

from collections.abc import Iterable

from bnaudit.findings.advice.case import Case
from bnaudit.findings.advice.data import data
from bnaudit.findings.advice.model import model
from bnaudit.findings.advice.statistics import TOLD_BY_FIGURES, statistics
from bnaudit.findings.advice.suggestion import Family, Standing, Suggestion
from bnaudit.findings.advice.training import training
from bnaudit.results import Audit
from bnaudit.results.advice import Advice, Remedy

FAMILIES: tuple[Family, ...] = (data, statistics, model, training)


def advice_of(audit: Audit, source: str) -> Advice:
    """The remedies that speak to an Audit, the first to be done first. `source`: its name."""
    case = Case(audit)
    suggestions = [suggestion for family in FAMILIES for suggestion in family(case)]
    suggestions += _rest(case, suggestions)
    against = [one for one in suggestions if one.standing is Standing.AGAINST]
    ranked = sorted(
        (one for one in suggestions if one.standing is not Standing.AGAINST),
        key=lambda one: one.standing,
    )
    return Advice(
        source=source,
        versions=audit.versions,
        device=audit.device,
        dtype=audit.dtype,
        model=audit.model,
        outcome=case.outcome,
        remedies=_remedies(ranked),
        against=_remedies(against),
        request=audit.request,
    )


def _rest(case: Case, suggestions: Iterable[Suggestion]) -> list[Suggestion]:
    """What findings tell that no remedy has cited: an error is never passed over."""
    told = {path for one in suggestions for sentence in one.sentences for path in sentence.paths}
    codes = [
        finding.code
        for i, finding in enumerate(case.audit.findings)
        if finding.severity != "info"
        and finding.code not in TOLD_BY_FIGURES
        and f"findings[{i}].code" not in told
    ]
    if not codes:
        return []
    cost = "As the finding says (bnaudit explain CODE)."
    sentences = case.instructions(*codes)
    title = "See to the other findings"
    return [Suggestion("other-findings", title, Standing.POSSIBLE, sentences, cost)]


def _remedies(ranked: list[Suggestion]) -> tuple[Remedy, ...]:
    return tuple(
        Remedy(one.name, one.title, rank, one.sentences, one.cost, one.command)
        for rank, one in enumerate(ranked, start=1)
    )
