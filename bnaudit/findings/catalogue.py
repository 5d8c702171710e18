"""All rules, found wherever they are declared in `findings.rules`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from bnaudit.errors import InputError
from bnaudit.findings import rules
from bnaudit.findings.rule import RULES, Rule


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, by code."""
    for module in pkgutil.iter_modules(rules.__path__):
        importlib.import_module(f"{rules.__name__}.{module.name}")
    return tuple(RULES[code] for code in sorted(RULES))


def find_rule(code: str) -> Rule:
    """The rule with this code or name. Raises `InputError` with the nearest ones."""
    import difflib

    wanted = code.strip()
    for known in all_rules():
        if wanted.upper() == known.code or wanted.lower() == known.name:
            return known
    names = [known.code for known in all_rules()] + [known.name for known in all_rules()]
    near = difflib.get_close_matches(wanted, names, n=2) or difflib.get_close_matches(
        wanted.upper(), names, n=3
    )
    hint = f"did you mean {' or '.join(near)}?" if near else "bnaudit explain --all lists them"
    raise InputError(f"{code}: no finding has that code or name; {hint}")


def find_rules(text: str) -> tuple[Rule, ...]:
    """The rule with this code or name, or all whose codes begin so (BN1). Raises `InputError`."""
    family = tuple(rule for rule in all_rules() if rule.code.startswith(text.strip().upper()))
    return family if text.strip() and family else (find_rule(text),)
