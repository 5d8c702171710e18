"""Advice in the terminal: the remedies in their order, each with its evidence, cost and command."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bnaudit.report.findings import print_command, print_indented
from bnaudit.results.advice import Advice, Outcome, Remedy, Sentence

OUTCOMES: dict[Outcome, str] = {
    "better": "Measured: the network is better by the statistics of these data.",
    "no better": "Measured: the network is not shown to be better by the statistics of these data.",
    "divided": "Measured: by the statistics of these data accuracy is better, the loss is not.",
    "open": "Open: whether the network is better by the statistics of these data.",
}


def print_advice(advice: Advice, console: Console) -> None:
    """The remedies, then what the figures speak against; under each sentence where it stands."""
    console.print(Text(f"Advice for {advice.source}", style="bold"))
    console.print(Text(OUTCOMES[advice.outcome]))
    _print_remedies(advice.remedies, console, "bold green")
    if advice.against:
        console.print(Text("\nThe figures speak against:", style="bold"))
        _print_remedies(advice.against, console, "bold yellow")
    console.print(Text("\n[…]: where in audit.json a figure stands", style="dim"))


def _print_remedies(remedies: Sequence[Remedy], console: Console, style: str) -> None:
    said: dict[str, str] = {}
    for remedy in remedies:
        console.print(
            Text.assemble("\n", (f"{remedy.rank}. {remedy.title}", style), f" ({remedy.name})")
        )
        for sentence in remedy.sentences:
            _print_sentence(sentence, console)
        print_indented(console, Text.assemble(("cost: ", "bold"), remedy.cost))
        if remedy.command is not None:
            print_command(console, remedy.command, remedy.title, said)


def _print_sentence(sentence: Sentence, console: Console) -> None:
    print_indented(console, Text(sentence.text))
    paths = Text(f"[{', '.join(sentence.paths)}]", style="dim")
    console.print(Padding(paths, (0, 0, 0, 4), expand=False))
