"""What leaks between batch mates, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report.findings import print_findings
from bnaudit.report.judged import printable
from bnaudit.report.numbers import percent, points, short, span
from bnaudit.report.tables import shortened, some, table_of_layers
from bnaudit.results.change import Change
from bnaudit.results.leakage import Arrangement, Dependence, Leakage, Probed, SizeLeakage
from bnaudit.results.scores import Figure

ARRANGEMENTS = (
    "the same samples under mini-batch statistics; each difference is from shuffled batches of "
    "that size, paired, with the noise of samples, batches and draws. purity: the share of a batch "
    "that its most frequent group (in an order: its most frequent class) has."
)

PROBES = (
    "shares of held-out samples. moments: the class of a batch of one class, read from its moments "
    "alone (in such batches they nearly always tell it). mates: a sample among mates of another "
    "class read as the mates' class, own: as its own. shuffled: the same samples read as that "
    "class in shuffled batches."
)


def print_leakage(found: Leakage, console: Console, *, all_layers: bool = False) -> None:
    """Everything in the order in which a reader asks; from the result alone."""
    console.print(about(found))
    if found.dependence is not None:
        console.print(Text("\nIn eval mode", style="bold"))
        console.print(Padding(Text(_in_eval(found.dependence)), (0, 0, 0, 2)))
    if found.sizes:
        console.print(Text(f"\n{_heading(found)}", style="bold"))
        console.print(arrangement_table(found))
        for line in _sentences(found.sizes):
            console.print(Padding(Text(line), (0, 0, 0, 2)))
        console.print(Padding(Text(ARRANGEMENTS, style="dim"), (1, 0, 0, 0)))
    if found.probed is not None:
        console.print(Text("\nBy layer", style="bold"))
        console.print(layer_table(found.probed, all_layers=all_layers))
        console.print(Padding(Text(PROBES, style="dim"), (1, 0, 0, 0)))
    layers = len(found.probed.layers) if found.probed else sum(found.model.bn_layers.values())
    print_findings(found.findings, console, layers=layers)


def about(found: Leakage) -> Table:
    """The model, the data, and what could not be looked at."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    checkpoint = found.model.checkpoint
    model = f"{found.model.source}, {checkpoint}" if checkpoint else found.model.source
    grid.add_row("model", Text(printable(model)))
    data = found.data
    grid.add_row("data", Text(printable(f"{data.source}: {data.samples:,} samples")))
    for note in found.notes:
        grid.add_row("note", Text(printable(note)))
    return grid


def arrangement_table(found: Leakage) -> Table:
    """A row for inference, then a block a size: shuffled batches, and each arrangement."""
    accurate = found.deployed.accuracy is not None
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("batches", overflow="fold", min_width=8)
    figure = "accuracy, %" if accurate else "agreement, %"
    for header in ("purity", figure, "diff.", "95% interval"):
        table.add_column(header, justify="right", no_wrap=True)
    if found.deployed.accuracy is not None:
        table.add_row("", "none: deployed", "", _percent(found.deployed.accuracy), "", "")
    for size in found.sizes:
        shuffled = size.shuffled.accuracy if accurate else size.shuffled.agreement
        table.add_row(str(size.size), "shuffled", "", _percent(shuffled), "", "")
        for one in size.arrangements:
            table.add_row("", *_arrangement(one, one.accuracy if accurate else one.agreement))
    return table


def _arrangement(one: Arrangement, change: Change | None) -> tuple[Text | str, ...]:
    name = Text(printable(f"by {one.by}" if one.by != "order" else "in order"))
    pure = "–" if one.purity is None else f"{one.purity:.0%}"
    if change is None:
        return name, pure, "–", "–", "–"
    interval = span(change.low, change.high, points)
    return name, pure, f"{100 * change.after:.1f}", points(change.difference), interval


def layer_table(probed: Probed, *, all_layers: bool) -> Table:
    """What the probes read at each layer; a long table is shortened to those that carry most."""
    shown, title = shortened(
        probed.layers,
        lambda one: one.mates.difference,
        "share of mates' class",
        all_layers=all_layers,
    )
    table = table_of_layers(("moments", "mates", "shuffled", "difference", "own"), title)
    for one in shown:
        interval = span(one.mates.low, one.mates.high, short)
        table.add_row(
            Text(printable(one.name)),
            short(one.moments.after),
            short(one.mates.after),
            short(one.mates.before),
            interval,
            short(one.own.value),
        )
    return table


def _heading(found: Leakage) -> str:
    sizes = ", ".join(str(one.size) for one in found.sizes)
    inside = f" inside batches of {found.batch_size}" if found.batch_size else ""
    draws = found.sizes[0].draws
    return f"In training: normalised by {sizes}{inside}, mean of {draws} draws"


def _sentences(sizes: Sequence[SizeLeakage]) -> list[str]:
    said = []
    for one in sizes:
        if one.flips is not None:
            said.append(
                f"at {one.size}: {percent(one.flips.value)} of samples change their class from "
                "shuffle to shuffle"
            )
        if one.strangers is not None:
            mates = one.strangers.mates
            said.append(
                f"at {one.size}: of {one.strangers.samples:,} samples among mates of another "
                f"class {percent(mates.after)} get the mates' class (shuffled "
                f"{percent(mates.before)}), {percent(one.strangers.own.value)} their own"
            )
        if one.kept:
            said.append(
                f"at {one.size}: a single value per channel, estimates kept: {some(one.kept)}"
            )
    return [printable(line) for line in said]


def _in_eval(seen: Dependence) -> str:
    if seen.stochastic:
        return "two runs of the same batch differ: what depends on mates cannot be told"
    figures = (
        ("alone", seen.alone),
        ("with other mates", seen.other_mates),
        ("at another place", seen.position),
    )
    said = ", ".join(f"{how} {_exact(value)}" for how, value in figures if value is not None)
    if not seen.depends:
        rounding = ": rounding, which float64 does not show" if seen.in_float64 is False else ""
        return f"an output does not depend on the batch (relative difference {said}{rounding})"
    return (
        f"an output depends on the batch (relative difference {said}), from "
        f"{printable(str(seen.layer))} on"
    )


def _exact(value: float) -> str:
    """`0`, `7e-7`: how far two outputs are apart."""
    return "0" if value == 0 else short(value)


def _percent(figure: Figure | None) -> str:
    return "–" if figure is None else f"{100 * figure.value:.1f}"
