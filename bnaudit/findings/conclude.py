"""From a subject to its findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bnaudit.findings.catalogue import all_rules
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.findings.rule import Found, Rule
from bnaudit.results.findings import SEVERITIES, Finding


def conclude(
    subjects: Iterable[object], policy: Policy = DEFAULT, known: Sequence[Finding] = ()
) -> tuple[Finding, ...]:
    """The findings of all rules over these subjects, the gravest first, then by code.

    A finding that another rule explains better (`Rule.unless`) is left out. `known`: findings about
    subjects that are not at hand, which stand beside them.
    """
    subjects = tuple(subjects)
    found = [
        (rule, _finding(rule, one, policy))
        for rule in all_rules()
        if policy.wants(rule)
        for subject in subjects
        if isinstance(subject, rule.subject)
        for one in rule.find(subject, policy.limits(rule))
    ]
    findings = [*known, *(finding for _, finding in found)]
    kept = [finding for rule, finding in found if not _explained(rule, finding, findings)]
    return tuple(sorted([*known, *kept], key=lambda f: (SEVERITIES.index(f.severity), f.code)))


def _finding(rule: Rule, found: Found, policy: Policy) -> Finding:
    return Finding(
        code=rule.code,
        name=rule.name,
        severity=policy.graded(rule, found.severity or rule.severity),
        sentence=found.sentence,
        remedy=found.remedy or rule.remedy,
        source=rule.source,
        layers=found.layers,
        command=found.command,
        evidence=found.evidence,
    )


def _explained(rule: Rule, finding: Finding, all_found: Sequence[Finding]) -> bool:
    """Whether findings of better rules cover all layers of this one; without layers, they do."""
    better = [other for other in all_found if other.code in rule.unless]
    if any(not other.layers for other in better):
        return True
    covered = {layer for other in better for layer in other.layers}
    return bool(finding.layers) and covered >= set(finding.layers)
