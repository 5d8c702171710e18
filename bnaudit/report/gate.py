"""A Gate in the terminal: the verdict, what fails with its remedy, and what was left out of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnaudit.report import judged
from bnaudit.report.changes import layer_table, network_table
from bnaudit.report.changes_words import summary
from bnaudit.report.findings import print_command, print_indented
from bnaudit.report.judged import VERDICTS, printable
from bnaudit.results import Check, Gate, Outcome

STYLE: dict[Outcome, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
}

HEADINGS: dict[Outcome, str] = {"fail": "Failing", "inconclusive": "Inconclusive"}


def print_gate(gate: Gate, console: Console, *, all_layers: bool = False) -> None:
    """Everything that the verdict rests on: what fails first, then what could not be told."""
    console.print(headline(gate))
    console.print(_about(gate))
    said: dict[str, str] = {}
    for outcome, heading in HEADINGS.items():
        checks = gate.with_outcome(outcome)
        if checks:
            console.print(Text(f"\n{heading}: {len(checks)}", style="bold"))
        for check in checks:
            _print_check(check, console, said, all_layers=all_layers)
    if any(check.kind == "finding" and check.outcome != "pass" for check in gate.checks):
        console.print(Text("what a code means: bnaudit explain CODE", style="dim"))
    _print_baseline(gate, console, all_layers=all_layers)
    _print_left_out(gate, console)


def headline(gate: Gate) -> Text:
    """The verdict and its sentence."""
    verdict = (VERDICTS[gate.outcome], STYLE[gate.outcome])
    return Text.assemble(verdict, "  ", printable(gate.sentence))


def _about(gate: Gate) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for word, text in judged.about(gate):
        grid.add_row(word, Text(text))
    for note in judged.notes(gate):
        grid.add_row("note", Text(note))
    return grid


def _print_check(check: Check, console: Console, said: dict[str, str], *, all_layers: bool) -> None:
    style = STYLE[check.outcome]
    severity = f" ({check.severity})" if check.kind == "finding" else ""
    console.print(
        Text.assemble((f"{VERDICTS[check.outcome]} ", style), judged.label(check), severity)
    )
    print_indented(console, Text(printable(check.sentence)))
    if not _says_whom(check) or (all_layers and len(check.layers) > 1):
        most = len(check.layers) if all_layers else judged.MOST_LAYERS
        print_indented(console, Text(judged.whom(check.layers, most), style="dim"))
    if check.remedy:
        print_indented(console, Text.assemble(("→ ", "green"), printable(check.remedy)))
    if check.command:
        print_command(console, printable(check.command), check.name, said)


def _says_whom(check: Check) -> bool:
    """Whether the sentence names every layer already."""
    words = {word.strip("().,;:") for word in check.sentence.split()}
    return all(name in words for name in check.layers)


def _print_baseline(gate: Gate, console: Console, *, all_layers: bool) -> None:
    changes = gate.changes
    if changes is None:
        return
    console.print(Text("\nAgainst the baseline", style="bold"))
    print_indented(console, Text(summary(changes)))
    for line in judged.moved_layers(gate):
        print_indented(console, Text(line))
    if all_layers:
        if changes.network:
            console.print(network_table(changes))
        if changes.layers:
            console.print(layer_table(changes, all_layers=True))


def _print_left_out(gate: Gate, console: Console) -> None:
    """What passed, what does not count and why, and settings that are not needed any more."""
    lines = judged.passed(gate)
    lines += [
        f"waived: {judged.named(each.finding)}: {judged.reason(each)}" for each in gate.waived
    ]
    others = judged.others(gate)
    if others is not None:
        lines.append(others)
    _print_block(console, lines)
    _print_block(console, [f"unused setting {printable(line)}" for line in gate.unused_ignores])


def _print_block(console: Console, lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        console.print(Text(f"\n{line}" if number == 0 else line))
