"""Which findings are wanted, how grave they are, and from which thresholds on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bnaudit.errors import InputError
from bnaudit.findings.catalogue import all_rules, find_rule
from bnaudit.findings.rule import Limits, Rule, Threshold
from bnaudit.results.findings import SEVERITIES, Severity


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
        """The rule's thresholds: as set, or those that they follow, or its own."""
        return {t.name: self._limit(rule.code, t) for t in rule.thresholds}

    def _limit(self, code: str, threshold: Threshold) -> float:
        found = self.thresholds.get(code, {}).get(threshold.name)
        if found is None and threshold.same_as is not None:
            found = self.thresholds.get(threshold.same_as, {}).get(threshold.name)
        return threshold.default if found is None else found

    def graded(self, rule: Rule, severity: Severity) -> Severity:
        """The severity of a finding that has `severity` by itself."""
        return self.severity.get(rule.code, severity)

    def checked(self) -> Policy:
        """The policy with codes for names, once everything in it exists.

        Raises `InputError` otherwise.
        """
        thresholds: dict[str, dict[str, float]] = {}
        for key, values in self.thresholds.items():
            code = _code(key)
            _check_thresholds(find_rule(code), values)
            thresholds[code] = {**thresholds.get(code, {}), **values}
        for key, severity in self.severity.items():
            if severity not in SEVERITIES:
                raise InputError(f"severity {key} is {severity!r}: give {', '.join(SEVERITIES)}")
        return Policy(
            thresholds=thresholds,
            select=codes_of("select", self.select),
            ignore=codes_of("ignore", self.ignore),
            severity={_code(key): severity for key, severity in self.severity.items()},
        )


def _code(key: str) -> str:
    """The code of a rule given by its code or its name."""
    return find_rule(key).code


def codes_of(option: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Codes, or how codes begin, from those, from names, or from several in one text."""
    texts = [given] if isinstance(given, str) else given
    wanted = [part.strip() for text in texts for part in text.split(",")]
    known = [rule.code for rule in all_rules()]
    found = []
    for part in wanted:
        if part and any(code.startswith(part.upper()) for code in known):
            found.append(part.upper())
        else:
            try:
                found.append(_code(part))
            except InputError as error:
                raise InputError(f"{option}: {error}") from None
    return tuple(found)


def _check_thresholds(rule: Rule, values: object) -> None:
    names = {threshold.name: threshold for threshold in rule.thresholds}
    if not isinstance(values, Mapping):
        example = f"{{{rule.code!r}: {{{next(iter(names), 'name')!r}: 0.2}}}}"
        raise InputError(f"thresholds of {rule.code}: give them by name, such as {example}")
    for name, value in values.items():
        if name not in names:
            has = f"it has {', '.join(names)}" if names else "it has none at all"
            raise InputError(f"threshold {rule.code}.{name}: there is no such threshold; {has}")
        least = names[name].least
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < least:
            raise InputError(
                f"threshold {rule.code}.{name} is {value!r}: give a number, {least:g} or more"
            )


DEFAULT = Policy()
