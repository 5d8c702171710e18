"""What `bnaudit explain` says of the rules, as Markdown (`docs/findings.md`) and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnaudit.findings.rule import Rule, Threshold

FAMILIES = {
    "BN0": "BN0xx: the stored state",
    "BN1": "BN1xx: estimation shift",
    "BN2": "BN2xx: training against inference",
    "BN3": "BN3xx: data and batches",
}
"""A heading for each family, by how its codes begin."""

SUBJECTS = {
    "State": "a checkpoint or a model by itself",
    "Lineage": "a checkpoint against its parent",
    "Audit": "a measurement on data",
    "Sweep": "the values of one quantity (`bnaudit sweep`)",
    "Domains": "a comparison of domains (`bnaudit domains`)",
    "Leakage": "outputs among other batch mates (`bnaudit leakage`)",
}
"""What is judged, by the name of the type."""

INTRODUCTION = """\
# Findings

What bnaudit concludes is a list of findings: a stable code, a severity (`error`, `warning`, `info`),
the layers, a sentence with the figures, and what to do. This page is `bnaudit explain --all`;
`bnaudit explain BN012` shows one code in the terminal.

Symbols: m̂, v̂ are a layer's `running_mean` and `running_var`, m, v the mean and the biased variance
of its input, `s = √(v + ε)`, `ŝ = √(v̂ + ε)`, γ and β its weight and bias (see `docs/figures.md`).

To change what is reported:

| | on the command line | in `bnaudit.toml` |
| --- | --- | --- |
| a threshold | `--threshold BN012.multiple_of_eps=20` | `[thresholds.BN012]`, below it `multiple_of_eps = 20` |
| only some codes | `--select BN1` | `select = ["BN1"]` |
| all but some codes | `--ignore BN018` | `ignore = ["BN018"]` |
| a severity | | `[severity]`, below it `BN012 = "warning"` |

In `pyproject.toml` the same stands under `[tool.bnaudit]`."""  # noqa: E501


def markdown_of_all(rules: Sequence[Rule]) -> str:
    """The whole page: the introduction, a table of the codes, and each rule by family."""
    parts = [INTRODUCTION, markdown_table(rules)]
    for start, heading in FAMILIES.items():
        family = [rule for rule in rules if rule.code.startswith(start)]
        if family:
            parts.append(f"## {heading}")
            parts += [f"### {title(rule)}\n\n{markdown_body(rule)}" for rule in family]
    return "\n\n".join(parts) + "\n"


def markdown_table(rules: Sequence[Rule]) -> str:
    """Code, name, severity and first sentence, a row a rule."""
    rows = ["| code | name | severity | meaning |", "| --- | --- | --- | --- |"]
    for rule in rules:
        meaning = first_sentence(rule.means).replace("|", "\\|")
        rows.append(f"| {rule.code} | `{rule.name}` | {rule.severity} | {meaning} |")
    return "\n".join(rows)


def markdown_of(rule: Rule) -> str:
    """One rule, with its heading."""
    return f"# {title(rule)}\n\n{markdown_body(rule)}\n"


def title(rule: Rule) -> str:
    """`BN012 dead-channels (info)`."""
    return f"{rule.code} {rule.name} ({rule.severity})"


def markdown_body(rule: Rule) -> str:
    """What it means, how it is computed, why it matters, what to do, thresholds, source."""
    subject = SUBJECTS.get(rule.subject.__name__, rule.subject.__name__)
    parts = [
        rule.means,
        f"**How it is computed.** {rule.computed}",
        f"**Why it matters.** {rule.matters}",
        f"**What to do.** {rule.remedy}",
        _thresholds(rule),
        f"**Judged on** {subject}.{_unless(rule)}",
        f"**Source:** {rule.source.rstrip('.')}.",
    ]
    return "\n\n".join(part for part in parts if part)


def documents(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """The same as plain data, for JSON: an object a rule."""
    return [
        {
            "code": rule.code,
            "name": rule.name,
            "severity": rule.severity,
            "subject": rule.subject.__name__,
            "means": rule.means,
            "computed": rule.computed,
            "matters": rule.matters,
            "remedy": rule.remedy,
            "source": rule.source,
            "thresholds": [
                {"name": one.name, "default": one.default, "reason": one.reason}
                for one in rule.thresholds
            ],
            "unless": list(rule.unless),
        }
        for rule in rules
    ]


def first_sentence(text: str) -> str:
    """Up to the full stop that ends the first sentence."""
    flat = " ".join(text.split())
    end = flat.find(". ")
    return flat if end < 0 else flat[: end + 1]


def _thresholds(rule: Rule) -> str:
    if not rule.thresholds:
        return ""
    items = [_threshold(one) for one in rule.thresholds]
    return "\n".join(["**Thresholds**, with their defaults:", "", *items, "", _how_to_change(rule)])


def _how_to_change(rule: Rule) -> str:
    one: Threshold = rule.thresholds[0]
    return (
        f"To change one: `--threshold {rule.code}.{one.name}={one.default:g}`, or in "
        f"`bnaudit.toml` the table `[thresholds.{rule.code}]` with `{one.name} = {one.default:g}`."
    )


def _unless(rule: Rule) -> str:
    if not rule.unless:
        return ""
    return f" Not reported where {' or '.join(rule.unless)} explains the same layers."


def _threshold(one: Threshold) -> str:
    follows = ""
    if one.same_as is not None:
        follows = f" It follows `{one.same_as}.{one.name}` unless it is set itself."
    return f"- `{one.name}` = {one.default:g}. {one.reason}{follows}"
