"""A sweep in the terminal: what it says, then a table for each set of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report.findings import print_findings
from bnaudit.report.loaded import loaded
from bnaudit.report.numbers import loss, percent, points, short, span
from bnaudit.report.sweep_words import ROLES, WORDS, heading, legend, value_text
from bnaudit.report.tables import WIDE
from bnaudit.results import Change
from bnaudit.results.scores import Figure, Scores
from bnaudit.results.sweep import Sweep, SweepData, SweepPoint


def print_sweep(sweep: Sweep, console: Console) -> None:
    """Everything a reader needs, the conclusions first."""
    _print_loaded(sweep, console)
    console.print()
    if not sweep.conclusions:
        console.print(Text("No conclusion: see the table.", style="bold yellow"))
    for conclusion in sweep.conclusions:
        style = "bold green" if conclusion.significant else "bold yellow"
        console.print(Text(conclusion.sentence, style=style))
    for data in sweep.data:
        console.print(Text(f"\n{heading(sweep, data)}", style="bold"))
        console.print(table(sweep, data, console.width))
    said = legend(sweep)
    if said:
        console.print(Padding(Text(said, style="dim"), (1, 0, 0, 0)))
    print_findings(sweep.findings, console, layers=max(1, len(sweep.layers)))


def _print_loaded(sweep: Sweep, console: Console) -> None:
    tried = {ROLES[one.role]: one.info for one in sweep.data}
    known = {info.fingerprint for info in tried.values()}
    calibration = sweep.calibration
    own = calibration is not None and calibration.fingerprint not in known
    data = {"calibration": calibration, **tried} if own and calibration is not None else tried
    grid = loaded(sweep.model, data, f"{sweep.device}, {sweep.dtype}")
    for note in sweep.notes:
        grid.add_row("note", Text(note))
    console.print(grid)


@dataclass(frozen=True)
class Row:
    """A row of the table: its name, its scores, and how it differs from other conditions."""

    name: str
    scores: Scores
    shift: Figure | None = None
    from_estimates: Change | None = None
    from_exact: Change | None = None


def rows(sweep: Sweep, data: SweepData) -> list[Row]:
    """A row a value, and those of the conditions without any."""
    made = [_row(sweep, point) for point in sweep.of(data.role)]
    made.append(Row("estimates", data.estimates))
    if data.exact is not None:
        made.append(Row("exact", data.exact))
    return made


def _row(sweep: Sweep, point: SweepPoint) -> Row:
    mark = "*" if point.value == sweep.current and sweep.kind != "example-weight" else ""
    return Row(
        value_text(sweep.kind, point.value) + mark,
        point.scores,
        point.shift,
        point.accuracy_change,
        point.accuracy_from_exact,
    )


@dataclass(frozen=True)
class _Column:
    """A head and what stands below it; `narrow`: also in a terminal of few columns."""

    head: str
    cell: Callable[[Row], str]
    narrow: bool = True


_INTERVAL = "95% int."


def table(sweep: Sweep, data: SweepData, width: int) -> Table:
    """The figures over the values; columns without any figure are left out."""
    shown = rows(sweep, data)
    drawn = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    drawn.add_column(WORDS[sweep.kind].value, no_wrap=True)
    columns = [
        column
        for column in _columns(WORDS[sweep.kind].shift)
        if (column.narrow or width >= WIDE) and any(column.cell(row).strip("–") for row in shown)
    ]
    for column in columns:
        drawn.add_column(column.head, justify="right", no_wrap=True)
    references = 1 + (data.exact is not None)
    for number, row in enumerate(shown):
        style = "dim" if number >= len(shown) - references else None
        drawn.add_row(Text(row.name), *(column.cell(row) for column in columns), style=style)
    return drawn


def _columns(shift: str) -> Sequence[_Column]:
    return (
        _Column("top-1", lambda row: _of(row.scores.accuracy, percent)),
        _Column(_INTERVAL, lambda row: _limits(row.scores.accuracy), narrow=False),
        _Column("loss", lambda row: _of(row.scores.loss, loss)),
        _Column("agree", lambda row: _of(row.scores.agreement, percent), narrow=False),
        _Column("from est.", lambda row: _difference(row.from_estimates)),
        _Column(_INTERVAL, lambda row: _change_limits(row.from_estimates), narrow=False),
        _Column("from exact", lambda row: _difference(row.from_exact)),
        _Column("rel. RMS", lambda row: short(row.scores.relative_rms)),
        _Column(shift, lambda row: _of(row.shift, short)),
    )


def _of(figure: Figure | None, write: Callable[[float | None], str]) -> str:
    return write(figure.value) if figure is not None else "–"


def _limits(figure: Figure | None) -> str:
    """`96.5–99.0`: the limits of a share, in percent."""
    if figure is None or figure.low is None or figure.high is None:
        return "–"
    return f"{100 * figure.low:.1f}–{100 * figure.high:.1f}"


def _difference(change: Change | None) -> str:
    return points(change.difference) if change is not None else "–"


def _change_limits(change: Change | None) -> str:
    if change is None or change.low is None or change.high is None:
        return "–"
    return span(change.low, change.high, points).replace(" to ", "…")
