"""The findings of an Audit that exists already, under the settings in force now."""

from __future__ import annotations

from dataclasses import replace

from bnaudit.errors import InputError
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import Policy
from bnaudit.findings.verdict import judge
from bnaudit.results import Audit, Finding


def reconsider(audit: Audit, policy: Policy) -> Audit:
    """The Audit with the verdict and the findings that this policy gives.

    What rests on figures is concluded anew. What was found in the stored state, of which an Audit
    holds no copy, stays as it is, but for what is not wanted and how grave it is.
    """
    known = tuple(
        known for known in (_regraded(one, policy) for one in audit.findings) if known is not None
    )
    findings = conclude((audit,), policy, known=known)
    return replace(audit, verdict=judge(audit, policy), findings=findings)


def _regraded(finding: Finding, policy: Policy) -> Finding | None:
    """None for what is concluded anew, or not wanted."""
    try:
        rule = find_rule(finding.code)
    except InputError:  # of another version of the tool
        return finding
    if rule.subject is Audit or not policy.wants(rule):
        return None
    return replace(finding, severity=policy.graded(rule, finding.severity))
