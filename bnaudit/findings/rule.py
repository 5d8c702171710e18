"""What a rule is, and how it is declared.

A rule is one small function over a subject (a `State`, a `Lineage`, an `Audit`) that yields what it
found. `@rule(...)` registers it with its code, its documentation and its thresholds; `catalogue`
finds all of them, so that adding one touches the file it stands in and no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bnaudit.results.findings import Severity

Limits = Mapping[str, float]
"""The thresholds in force for one rule, by their names."""


@dataclass(frozen=True)
class Threshold:
    """A figure that a rule compares with; `reason` says what it is, its unit, and why this much.

    `same_as`: the code of a rule whose threshold of this name it follows, unless it is set itself.
    `least`: the smallest value that makes sense.
    """

    name: str
    default: float
    reason: str
    same_as: str | None = None
    least: float = 0.0


@dataclass(frozen=True)
class Found:
    """What a rule found. What is None is as the rule says."""

    sentence: str
    layers: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    severity: Severity | None = None
    remedy: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Rule:
    """A rule and its documentation, each text in Markdown.

    `subject`: the type that it judges. `means`: what a finding says. `computed`: how, with the
    formula. `matters`: why, with the paper. `remedy`: what to do. `source`: papers, public threads.
    `unless`: codes of rules that explain the same layers better: where one of them has been found
    for all the layers of a finding, the finding is dropped.
    """

    code: str
    name: str
    severity: Severity
    subject: type
    means: str
    computed: str
    matters: str
    remedy: str
    source: str
    find: Callable[[Any, Limits], Iterable[Found]]
    thresholds: tuple[Threshold, ...] = ()
    unless: tuple[str, ...] = ()


RULES: dict[str, Rule] = {}
"""Every rule that has been declared, by code. `catalogue.all_rules` declares them all."""

_CODE = re.compile(r"BN[0-3]\d\d")

F = TypeVar("F", bound=Callable[..., Iterable[Found]])


def rule(
    code: str,
    name: str,
    severity: Severity,
    subject: type,
    *,
    means: str,
    computed: str,
    matters: str,
    remedy: str,
    source: str,
    thresholds: tuple[Threshold, ...] = (),
    unless: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Declare the function below as a rule: `find(subject, limits)` yields `Found`."""
    if not _CODE.fullmatch(code) or code in RULES:
        raise ValueError(f"{code}: not a code, or taken")

    def declare(find: F) -> F:
        texts = (means, computed, matters, remedy, source)
        RULES[code] = Rule(
            code, name, severity, subject, *texts, find=find, thresholds=thresholds, unless=unless
        )
        return find

    return declare
