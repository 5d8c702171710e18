"""Two Audits side by side in the terminal: what moved beyond noise, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report import judged
from bnaudit.report.changes_words import SHIFT, UNITS, Mark, cells, mark, network_changes, summary
from bnaudit.report.findings import STYLE as SEVERITY_STYLE
from bnaudit.report.judged import printable
from bnaudit.report.tables import shortened, some, table_of_layers
from bnaudit.results import Changes, Difference, Finding, LayerChange, Side

HEADERS = ("before", "after", "diff.", "95% interval", "")

SIGNS: dict[Mark, str] = {"worse": "▲ worse", "better": "▽ better", "": ""}
"""Read without colour, and without the sign."""

MARK_STYLE: dict[Mark, str] = {"worse": "bold red", "better": "green", "": ""}

MOST_NAMES = 6

LEGEND = (
    "output shift: RMS error of a layer's output that its estimates make, in standard deviations. "
    "▲ ▽: beyond the noise of both measurements, family-wise 1% over everything compared."
)


def print_changes(changes: Changes, console: Console, *, all_layers: bool = False) -> None:
    """Everything that two Audits tell about each other, in the order in which a reader asks."""
    console.print(Text(summary(changes), style="bold"))
    console.print()
    console.print(about(changes))
    if changes.network:
        console.print()
        console.print(network_table(changes))
    if changes.layers:
        console.print()
        console.print(layer_table(changes, all_layers=all_layers))
        console.print(Padding(Text(LEGEND, style="dim"), (1, 0, 0, 0)))
    _print_without_figures(changes.layers, console, all_layers=all_layers)
    _print_layers_elsewhere(changes, console, all_layers=all_layers)
    _print_found("Findings gained", changes.gained, console)
    _print_found("Findings lost", changes.lost, console)


def about(changes: Changes) -> Table:
    """Both sides, whether they saw the same samples, and what makes them less comparable."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    _add_side(grid, "before", changes.before)
    _add_side(grid, "after", changes.after)
    how = (
        "the same samples on both sides: what they have in common cancels"
        if changes.paired
        else "other samples on each side: the noise of both counts"
    )
    grid.add_row("samples", Text(how))
    for note in changes.notes:
        grid.add_row("note", Text(printable(note)))
    return grid


def _add_side(grid: Table, word: str, side: Side) -> None:
    grid.add_row(word, Text(printable(side.source)))
    rows = [judged.checkpoint(side) if side.checkpoint else "", side.model, judged.data(side)]
    said = ", ".join(row for row in rows if row)
    grid.add_row("", Text(printable(said), style="dim"))


def network_table(changes: Changes) -> Table:
    """A row a figure of the whole network."""
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("network", overflow="fold", min_width=12)
    for header in HEADERS:
        table.add_column(header, justify="left" if header == "" else "right", no_wrap=True)
    for item in network_changes(changes):
        unit = UNITS[item.figure]
        table.add_row(unit.name, *cells(item.change, unit), _mark(mark(item.change, unit)))
    return table


def layer_table(changes: Changes, *, all_layers: bool) -> Table:
    """The layers that both sides have; a long table is shortened to what moved most."""
    shown, title = shortened(changes.layers, _moved, "change", all_layers=all_layers)
    table = table_of_layers(HEADERS, title)
    table.columns[-1].justify = "left"
    for layer in shown:
        table.add_row(*_row(layer))
    return table


def _row(layer: LayerChange) -> Sequence[str | Text]:
    name, change = Text(printable(layer.name)), layer.output_shift
    if change is None:
        return name, *["–"] * 4, ""
    return name, *cells(change, SHIFT), _mark(mark(change))


def _mark(moved: Mark) -> Text:
    return Text(SIGNS[moved], style=MARK_STYLE[moved])


def _moved(layer: LayerChange) -> float:
    """What moved beyond noise before what did not, the largest difference first."""
    change: Difference | None = layer.output_shift
    if change is None:
        return -1.0
    return abs(change.difference) + 1e9 * change.significant


def _print_without_figures(
    layers: Sequence[LayerChange], console: Console, *, all_layers: bool
) -> None:
    groups: dict[str, list[str]] = {}
    for layer in layers:
        if layer.note:
            groups.setdefault(layer.note, []).append(layer.name)
    for note, names in groups.items():
        said = some(names, len(names) if all_layers else MOST_NAMES)
        console.print(Text(f"\n{printable(f'{said}: {note}')}"))


def _print_layers_elsewhere(changes: Changes, console: Console, *, all_layers: bool) -> None:
    pairs = [f"{layer.before_name} → {layer.name}" for layer in changes.renamed]
    groups = (("renamed", pairs), ("added", changes.added), ("removed", changes.removed))
    for word, names in groups:
        if names:
            said = some(names, len(names) if all_layers else MOST_NAMES)
            layers = "layer" if len(names) == 1 else "layers"
            console.print(Text("\n" + printable(f"{len(names)} {layers} {word}: {said}")))


def _print_found(heading: str, findings: Sequence[Finding], console: Console) -> None:
    if not findings:
        return
    console.print(Text(f"\n{heading}: {len(findings)}", style="bold"))
    for finding in findings:
        severity = (f" ({finding.severity})", SEVERITY_STYLE[finding.severity])
        console.print(Text.assemble(judged.named(finding), severity))
        text = Text(printable(finding.sentence))
        console.print(Padding(text, (0, 0, 0, 2), expand=False))
