"""A Gate as Markdown, for a comment on a pull request: short, with the details folded."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bnaudit.report import judged
from bnaudit.report.changes_words import (
    SHIFT,
    UNITS,
    Unit,
    cells,
    mark,
    network_changes,
    summary,
)
from bnaudit.report.judged import VERDICTS, printable
from bnaudit.results import Changes, Check, Difference, Gate, Outcome

MOST = 1000
"""Characters of a cell."""

HEADERS = """\
| Before | After | Difference | 95% interval | |
| --- | --: | --: | --: | --: | --- |"""
"""What follows the first header of a table of changes."""

SIGNS: dict[Outcome, str] = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}

_SPECIAL = re.compile(r"([\\`*_\[\]|~$!])")
_NO_CODE_SPAN = re.compile(r"[`|]|^ | $")
"""What a code span would end at, be cut into two cells at, or lose."""


@dataclass(frozen=True)
class Block:
    """Lines between a beginning and an end: with whole lines left out it is still whole."""

    lines: tuple[str, ...]
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return self.before + "".join(f"{line}\n" for line in self.lines) + self.after


def markdown(gate: Gate) -> str:
    """The whole report."""
    return "\n".join(map(str, blocks(gate)))


def blocks(gate: Gate) -> list[Block]:
    """The parts of the report, what matters most first."""
    parts = [_headline(gate)]
    for outcome, title in (("fail", "Failing"), ("inconclusive", "Inconclusive")):
        checks = [check for check in gate.checks if check.outcome == outcome]
        parts += [_checks(checks, title), _remedies(checks)] if checks else []
    if gate.changes is not None:
        parts += _against(gate, gate.changes)
    return [part for part in [*parts, *_left_out(gate)] if part.lines]


def _headline(gate: Gate) -> Block:
    verdict = f"### {SIGNS[gate.outcome]} bnaudit gate: {VERDICTS[gate.outcome]}"
    rows = [f"- {word}: {text(said)}" for word, said in judged.about(gate)]
    return Block((verdict, "", text(gate.sentence), "", *rows))


def _checks(checks: Sequence[Check], title: str) -> Block:
    rows = [
        f"| {_label(check)} | {_layers(check.layers)} | {text(check.sentence)} |"
        for check in checks
    ]
    return Block(tuple(rows), f"| {title} | Layers | What was found |\n| --- | --- | --- |\n")


def _label(check: Check) -> str:
    severity = f" ({check.severity})" if check.kind == "finding" else ""
    return f"**{code(check.name)}** {text(check.title)}{severity}"


def _layers(names: Sequence[str]) -> str:
    shown = ", ".join(code(name) for name in names[: judged.MOST_LAYERS])
    more = len(names) - judged.MOST_LAYERS
    return f"{shown} and {more} more" if more > 0 else shown


def _remedies(checks: Sequence[Check]) -> Block:
    """What to do, each remedy and each command once."""
    distinct = dict.fromkeys((check.name, check.remedy, check.command) for check in checks)
    lines: list[str] = []
    first: dict[str, str] = {}
    for name, remedy, command in distinct:
        line = f"- **{code(name)}**: {text(remedy or '')}"
        if command is not None and command in first:
            line += f" (the command of {code(first[command])})"
        elif command is not None:
            first[command] = name
            line += f"\n{_fenced(command)}"
        if remedy is not None or command is not None:
            lines.append(line)
    return _folded("What to do", lines)


def _against(gate: Gate, changes: Changes) -> list[Block]:
    moved = [f"- {text(line)}" for line in judged.moved_layers(gate)]
    said = Block((f"**Against the baseline**: {text(summary(changes))}", "", *moved))
    network = [
        _row(unit.name, item.change, unit)
        for item in network_changes(changes)
        for unit in [UNITS[item.figure]]
    ]
    compared = [(layer.name, layer.output_shift) for layer in changes.layers if layer.output_shift]
    compared.sort(key=lambda pair: not pair[1].significant)
    layers = [_row(code(name), change, SHIFT) for name, change in compared]
    return [
        said,
        _folded("The network", network, f"| Figure {HEADERS}"),
        _folded("The output shift of the layers", layers, f"| Layer {HEADERS}"),
    ]


def _row(name: str, change: Difference, unit: Unit) -> str:
    moved = mark(change, unit)
    figures = " | ".join(cells(change, unit))
    return f"| {name} | {figures} | {f'**{moved}**' if moved else ''} |"


def _left_out(gate: Gate) -> list[Block]:
    """What passed, what does not count and why, settings that are not needed, notes."""
    passed = [f"- {text(line)}" for line in judged.passed(gate)]
    others = judged.others(gate)
    waived = [
        f"- {text(judged.named(each.finding))}: {text(judged.reason(each))}" for each in gate.waived
    ]
    unused = [f"- unused setting {text(line)}" for line in gate.unused_ignores]
    notes = [f"- {text(note)}" for note in judged.notes(gate)]
    return [
        _folded(f"Passed: {len(passed)}", passed),
        _folded(f"Waived: {len(waived)}", waived),
        _folded("Below the severity that counts", [text(others)] if others else []),
        _folded("Settings and notes", unused + notes),
    ]


def _folded(title: str, lines: Sequence[str], before: str = "") -> Block:
    opening = f"<details><summary>{title}</summary>\n\n" + (f"{before}\n" if before else "")
    return Block(tuple(lines), opening, "\n</details>\n")


def text(said: str) -> str:
    """Plain words on one line, at most `MOST`: no markup, no HTML, no mention of a user."""
    line = printable(said)
    if len(line) > MOST:
        line = line[: MOST - 1] + "…"
    escaped = _SPECIAL.sub(r"\\\1", html.escape(line, quote=False))
    # An empty comment keeps GitHub from reading a user or an issue into it.
    return escaped.replace("@", "@<!-- -->").replace("#", "#<!-- -->")


def code(name: str) -> str:
    """A name in code type, whatever it holds, also inside a table."""
    line = printable(name) or " "
    if len(line) > MOST:
        line = line[: MOST - 1] + "…"
    if not _NO_CODE_SPAN.search(line):
        return f"`{line}`"
    return f"<code>{_SPECIAL.sub(_reference, html.escape(line, quote=False))}</code>"


def _reference(match: re.Match[str]) -> str:
    return f"&#{ord(match.group())};"


def _fenced(command: str) -> str:
    """A command in a block of its own inside a list item."""
    line = printable(command)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"  {fence}sh\n  {line}\n  {fence}"
