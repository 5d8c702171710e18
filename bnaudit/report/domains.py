"""A comparison of domains in the terminal: the conclusion, the matrix, the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report.domains_sharing import print_sharing
from bnaudit.report.findings import print_findings
from bnaudit.report.judged import printable
from bnaudit.report.loaded import loaded
from bnaudit.report.numbers import interval, loss, points, short, size, span
from bnaudit.report.tables import WORST, some, table_of_layers
from bnaudit.results.domains import CHECKPOINT, COMMON, POOLED, Cell, Domains, Gain

MOST_COLUMNS = 6
"""So many domains have room beside each other in 80 columns."""

LONGEST = 12
"""Characters of a domain's name in a table."""

LEVEL_STYLE = {
    "own": "bold green",
    "some": "bold yellow",
    "common": "bold green",
    "undecided": "bold yellow",
    "alone": "bold",
    "unlabelled": "bold yellow",
}


@dataclass(frozen=True)
class Measure:
    """One figure of a cell: what it is called, how it is read and written; whether more is better
    decides what is set in bold."""

    name: str
    read: Callable[[Cell], float | None]
    write: Callable[[float | None], str]
    more: bool


def _hundred(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


MEASURES = (
    Measure("accuracy, %", lambda c: _value(c, "accuracy"), _hundred, more=True),
    Measure("loss, nats", lambda c: _value(c, "loss"), loss, more=False),
    Measure("agreement with the checkpoint, %", lambda c: _value(c, "agreement"), _hundred, True),
    Measure("KL from the checkpoint, nats", lambda c: _value(c, "kl"), short, more=False),
    Measure("outputs' relative RMS", lambda c: c.scores.relative_rms, short, more=False),
    Measure("layer shift (ESM), RMS over layers", lambda c: c.shift, short, more=False),
)
ACCURACY, LOSS, AGREEMENT, KL, RMS, SHIFT = MEASURES


def _value(cell: Cell, name: str) -> float | None:
    figure = getattr(cell.scores, name)
    return None if figure is None else float(figure.value)


def print_domains(result: Domains, console: Console, *, all_layers: bool = False) -> None:
    """Everything a reader needs to decide, the conclusion first."""
    console.print(Text(printable(result.worth.sentence), style=LEVEL_STYLE[result.worth.level]))
    console.print()
    console.print(about(result))
    for measure in shown_measures(result):
        console.print(Text(f"\n{measure.name}", style="bold"))
        console.print(matrix(result, measure))
    if len(result.domains) > MOST_COLUMNS:
        more = "all cells are in domains.csv and in the JSON document"
        console.print(Text(f"other: the domain whose statistics suit best; {more}", style="dim"))
    if result.worth.gains:
        console.print(Text(f"\nOwn statistics against {_the(result.worth.common)}", style="bold"))
        console.print(gains_table(result.worth.gains))
    if result.layers and result.pairs:
        console.print()
        console.print(layer_table(result, all_layers=all_layers))
        console.print(Padding(Text(LEGEND, style="dim"), (1, 0, 0, 0)))
    print_sharing(result.sharing, console)
    console.print(Text(f"\nA bank of all statistics takes {size(result.bank_bytes)}."))
    for kept in _kept(result):
        console.print(Text(printable(kept)))
    layers = sum(result.model.bn_layers.values())
    print_findings(result.findings, console, layers=layers)


LEGEND = (
    "distance: of the exact statistics of two domains, in standard deviations, weighted by γ² "
    "(debiased); floor: what chance alone gives. Every layer upstream has its own domain's."
)


def _the(common: str | None) -> str:
    return "the pooled ones" if common == POOLED else "the checkpoint's"


def about(result: Domains) -> RenderableType:
    """What was loaded, and the samples of each domain."""
    data = {one.name: one.calibration for one in result.domains}
    grid = loaded(result.model, {}, f"{result.device}, {result.dtype}")
    transforms = {info.transform for info in data.values()}
    for one in result.domains:
        info = one.calibration
        said = (
            f"{info.source}; {info.samples:,} samples for the statistics, "
            f"{one.verification.samples:,} for verification"
        )
        if info.transform and len(transforms) > 1:
            said += f", transform {info.transform}"
        grid.add_row(Text(_cut(one.name)), Text(printable(said)))
    if len(transforms) == 1 and (transform := next(iter(transforms))):
        grid.add_row("transform", Text(transform))
    floors = [one.noise_floor for one in result.domains if one.noise_floor is not None]
    if floors:
        grid.add_row("noise", Text(f"chance puts own statistics off by up to {max(floors):.2g}"))
    for note in result.notes:
        grid.add_row("note", Text(printable(note)))
    return grid


def shown_measures(result: Domains) -> list[Measure]:
    """Those that there are figures for; agreement and KL only where nothing has labels."""
    known = [m for m in MEASURES if any(m.read(cell) is not None for cell in result.cells)]
    if ACCURACY in known:
        known = [m for m in known if m not in (AGREEMENT, KL)]
    return known


def matrix(result: Domains, measure: Measure) -> Table:
    """Statistics down, data across; for many domains a row a domain with what matters of it."""
    if len(result.domains) > MOST_COLUMNS:
        return _compact(result, measure)
    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
    table.add_column("statistics of", overflow="fold", min_width=12)
    for name in result.names:
        table.add_column(_cut(name), justify="right", no_wrap=True)
    for whose in result.statistics:
        figures = []
        for name in result.names:
            text = measure.write(measure.read(result.cell(whose, name)))
            figures.append(Text(text, style="bold" if whose == name else ""))
        table.add_row(Text(_cut(whose)), *figures)
    return table


def _compact(result: Domains, measure: Measure) -> Table:
    """For each domain: under the checkpoint's, the pooled, its own, and the best other ones."""
    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
    table.add_column("data of", overflow="fold", min_width=12)
    for header in (CHECKPOINT, POOLED, "own", "other", ""):
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    for name in result.names:
        common = [measure.write(measure.read(result.cell(whose, name))) for whose in COMMON]
        own = measure.write(measure.read(result.cell(name, name)))
        others = [
            (value, other)
            for other in result.names
            if other != name and (value := measure.read(result.cell(other, name))) is not None
        ]
        best = (max if measure.more else min)(others) if others else (None, "")
        table.add_row(
            Text(_cut(name)),
            *common,
            Text(own, style="bold"),
            measure.write(best[0]),
            Text(_cut(best[1]), style="dim"),
        )
    return table


def gains_table(gains: tuple[Gain, ...]) -> Table:
    """A row a domain: both accuracies, the difference with its interval, and the test."""
    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
    table.add_column("domain", overflow="fold", min_width=12)
    for header in ("common, %", "own, %", "points", "95% interval", "p", ""):
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    for gain in gains:
        change = gain.accuracy
        better = change.difference > 0
        mark = Text("")
        if gain.significant:
            mark = Text("▲ better", "green") if better else Text("▽ worse", "bold red")
        table.add_row(
            Text(_cut(gain.domain)),
            _hundred(change.before),
            _hundred(change.after),
            points(change.difference),
            span(change.low, change.high, points),
            _p(gain.p_value),
            mark,
        )
    return table


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}".replace("0.", ".", 1)


def layer_table(result: Domains, *, all_layers: bool) -> Table:
    """The layers in which two domains are farthest apart, the largest first."""
    farthest = result.farthest()
    shown = farthest if all_layers else farthest[:WORST]
    title = None
    if len(shown) < len(farthest):
        title = f"The {len(shown)} layers of largest distance, of {len(farthest)} (--all shows all)"
    two = len(result.pairs) == 1
    headers = ["distance", "95% interval", "floor"]
    table = table_of_layers(headers, title)
    if not two:
        table.add_column("between", justify="left", overflow="fold")
    for layer, pair, one in shown:
        between = [] if two else [Text(f"{_cut(pair[0])}, {_cut(pair[1])}")]
        figures = short(one.value), interval(one), short(one.noise_floor)
        table.add_row(Text(printable(layer.name)), *figures, *between)
    return table


def _kept(result: Domains) -> list[str]:
    groups: dict[str, list[str]] = {}
    for layer in result.kept:
        groups.setdefault(layer.reason, []).append(layer.name)
    return [f"kept as in the checkpoint: {some(names)}: {why}" for why, names in groups.items()]


def _cut(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
