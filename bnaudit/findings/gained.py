"""Which findings one Audit has that another has not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bnaudit.results import SEVERITIES, Finding


def gained(
    findings: Iterable[Finding], others: Iterable[Finding], names: Mapping[str, str]
) -> tuple[Finding, ...]:
    """The findings whose code `others` do not have as gravely, or not for the same layers.

    `names`: what the layers of `others` are called here; those that it does not name keep theirs.
    Of a finding that concerns layers both here and there, what is gained is a finding of the
    layers here alone; its sentence stays that of all of them. A finding without layers is gained
    where its code is nowhere in `others`.
    """
    there: dict[str, list[Finding]] = defaultdict(list)
    for other in others:
        there[other.code].append(other)
    found = []
    for finding in findings:
        as_grave = [other for other in there[finding.code] if _rank(other) <= _rank(finding)]
        known = {names.get(layer, layer) for other in as_grave for layer in other.layers}
        layers = tuple(name for name in finding.layers if name not in known)
        if not as_grave or layers:
            found.append(replace(finding, layers=layers))
    return tuple(found)


def _rank(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)
