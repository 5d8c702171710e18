"""Which findings one Audit has that another has not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bnaudit.results import Finding


def gained(
    findings: Iterable[Finding], others: Iterable[Finding], names: Mapping[str, str]
) -> tuple[Finding, ...]:
    """The findings whose code `others` do not have, or not for the same layers.

    `names`: what the layers of `others` are called here; those that it does not name keep theirs.
    Of a finding that concerns layers both here and there, what is gained is a finding of the
    layers here alone; its sentence stays that of all of them. A finding without layers is gained
    where its code is nowhere in `others`.
    """
    there: dict[str, set[str]] = defaultdict(set)
    for other in others:
        there[other.code] |= {names.get(layer, layer) for layer in other.layers}
    found = []
    for finding in findings:
        layers = tuple(name for name in finding.layers if name not in there.get(finding.code, ()))
        if finding.code not in there or layers:
            found.append(replace(finding, layers=layers))
    return tuple(found)
