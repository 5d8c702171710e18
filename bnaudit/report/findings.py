"""Findings in the terminal: the gravest first, each with its remedy beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bnaudit.report.tables import some
from bnaudit.results import SEVERITIES, Finding

STYLE = {"error": "bold red", "warning": "bold yellow", "info": "bold blue"}

MOST_LAYERS = 4


def print_findings(findings: Sequence[Finding], console: Console, *, layers: int) -> None:
    """Every finding with its layers, its remedy and its command; `layers`: of the whole network."""
    console.print(Text(f"\nFindings: {_counted(findings)}", style="bold"))
    commands: dict[str, str] = {}
    for finding in findings:
        console.print(_headline(finding))
        print_indented(console, Text(finding.sentence))
        if not _says_whom(finding):
            print_indented(console, Text(_whom(finding, layers), style="dim"))
        print_indented(console, Text.assemble(("→ ", "green"), finding.remedy))
        if finding.command is not None:
            print_command(console, finding.command, finding.code, commands)
    if findings:
        console.print(Text("what a code means: bnaudit explain CODE", style="dim"))


def print_indented(console: Console, text: Text) -> None:
    """Two columns in."""
    console.print(Padding(text, (0, 0, 0, 2), expand=False))


def print_command(console: Console, command: str, code: str, said: dict[str, str]) -> None:
    """A command to copy, never broken into lines by us; one that was given already is named."""
    first = said.setdefault(command, code)
    if first == code:
        console.print(Text(f"    {command}", style="cyan"), soft_wrap=True)
    else:
        print_indented(console, Text(f"  (the command of {first})", style="dim"))


def _counted(findings: Sequence[Finding]) -> str:
    if not findings:
        return "none"
    counts = Counter(finding.severity for finding in findings)
    words = {
        "error": ("error", "errors"),
        "warning": ("warning", "warnings"),
        "info": ("info",) * 2,
    }
    return ", ".join(f"{counts[s]} {words[s][counts[s] > 1]}" for s in SEVERITIES if counts[s])


def _headline(finding: Finding) -> Text:
    return Text.assemble(
        (finding.code, STYLE[finding.severity]),
        f" {finding.name} ",
        (f"({finding.severity})", STYLE[finding.severity]),
    )


def _says_whom(finding: Finding) -> bool:
    """Whether the sentence names the layers, or as many of them as are listed anywhere."""
    number, sentence = len(finding.layers), finding.sentence.lower()
    everyone = any(f"{all_of} {number} layers" in sentence for all_of in ("all", f"{number} of"))
    words = {word.strip("().,;:") for word in finding.sentence.split()}
    return everyone or all(name in words for name in finding.layers[:3])


def _whom(finding: Finding, layers: int) -> str:
    if len(finding.layers) == layers and layers > 1:
        return f"all {layers} layers"
    count = f"{len(finding.layers)} of {layers} layers: " if layers > 1 else ""
    return f"{count}{some(finding.layers, MOST_LAYERS)}"
