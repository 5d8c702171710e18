"""Which findings are wanted, how grave they are, and from which thresholds on."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bnaudit.errors import InputError
from bnaudit.findings.catalogue import all_rules
from bnaudit.findings.rule import Limits, Rule
from bnaudit.results.findings import Severity


@dataclass(frozen=True)
class Policy:
    """`thresholds`: by code, then by name. `select`, `ignore`: codes, or how codes begin (`BN1`);
    nothing selected is everything; what is ignored is not selected. `severity`: by code.
    """

    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    severity: Mapping[str, Severity] = field(default_factory=dict)

    def wants(self, rule: Rule) -> bool:
        """Whether the rule's findings are to be reported."""
        selected = not self.select or rule.code.startswith(self.select)
        return selected and not (self.ignore and rule.code.startswith(self.ignore))

    def limits(self, rule: Rule) -> Limits:
        """The rule's thresholds, those that are set over its own."""
        own = {threshold.name: threshold.default for threshold in rule.thresholds}
        return {**own, **self.thresholds.get(rule.code, {})}

    def graded(self, rule: Rule, severity: Severity) -> Severity:
        """The severity of a finding that has `severity` by itself."""
        return self.severity.get(rule.code, severity)

    def checked(self) -> Policy:
        """The policy, once everything that it names exists. Raises `InputError` otherwise."""
        rules = {rule.code: rule for rule in all_rules()}
        for option, codes in (("select", self.select), ("ignore", self.ignore)):
            for code in codes:
                if not code or not any(known.startswith(code) for known in rules):
                    raise InputError(f"{option} {code!r}: no such code{_near(code, rules)}")
        for code in (*self.thresholds, *self.severity):
            if code not in rules:
                raise InputError(f"{code}: no such code{_near(code, rules)}")
        for code, values in self.thresholds.items():
            names = [threshold.name for threshold in rules[code].thresholds]
            for name, value in values.items():
                if name not in names:
                    has = f"it has {', '.join(names)}" if names else "it has none"
                    raise InputError(f"threshold {code}.{name}: {code} has no such; {has}")
                if not math.isfinite(value):
                    raise InputError(f"threshold {code}.{name} is {value}: give a number")
        return self


DEFAULT = Policy()


def _near(code: str, rules: Mapping[str, Rule]) -> str:
    near = difflib.get_close_matches(code.upper(), list(rules), n=1)
    return f"; did you mean {near[0]}?" if near else "; bnaudit explain --all lists them"
