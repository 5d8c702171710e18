"""An Inspection in the terminal: the file, its layers in figures and in strips, the findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report.findings import print_findings
from bnaudit.report.lineage import print_comparison
from bnaudit.report.numbers import short, size
from bnaudit.report.tables import WIDE, shortened, some, table_of_layers
from bnaudit.report.terminal import BARS
from bnaudit.results.inspection import FileFacts, Histogram, InspectedLayer, Inspection, Range

ROOMY = 110
"""Columns of a terminal from which on a table has every figure."""

FORMATS = {
    "zip": "torch.save",
    "legacy": "torch.save before torch 1.6",
    "safetensors": "safetensors",
}

BAD = "bad"
"""The column that only appears where it has something to say."""

LONGEST_STRIP = 48

SUSPICION = {"error": 100.0, "warning": 10.0, "info": 1.0}
"""What a finding about a layer weighs where a long table is shortened."""


@dataclass(frozen=True)
class _Column:
    """`group`: stands above the header of the first of the columns that it spans."""

    header: str
    cell: Callable[[InspectedLayer], str]
    from_width: int = 0
    group: str = ""


def _range_columns(
    group: str, range_of: Callable[[InspectedLayer], Range | None], from_width: int = 0
) -> tuple[_Column, ...]:
    """Minimum, median (in a roomy terminal) and maximum of one figure over the channels."""

    def column(header: str, part: Callable[[Range], float], width: int, above: str = "") -> _Column:
        def cell(layer: InspectedLayer) -> str:
            values = range_of(layer)
            return short(part(values) if values else None)

        return _Column(header, cell, max(width, from_width), above)

    return (
        column("min", lambda values: values.minimum, 0, group),
        column("med", lambda values: values.median, ROOMY),
        column("max", lambda values: values.maximum, 0),
    )


COLUMNS = (
    _Column("ch", lambda layer: str(layer.channels)),
    _Column("n", lambda layer: _count(layer.num_batches_tracked), WIDE),
    _Column("dtype", lambda layer: layer.dtype, ROOMY),
    _Column("eps", lambda layer: f"{layer.eps:g}{'' if layer.eps_known else '?'}", ROOMY),
    _Column("momentum", lambda layer: short(layer.momentum), ROOMY),
    *_range_columns("mean", lambda layer: layer.running_mean, WIDE),
    *_range_columns("var", lambda layer: layer.running_var),
    *_range_columns("|γ|", lambda layer: layer.gamma),
    _Column("scale", lambda layer: short(layer.largest_scale)),
    _Column("dead", lambda layer: str(layer.dead)),
    _Column(BAD, lambda layer: str(layer.non_finite)),
)


def print_inspection(inspection: Inspection, console: Console, *, all_layers: bool = False) -> None:
    """Everything the Inspection holds, in the order in which a reader asks."""
    console.print(about(inspection))
    layers = inspection.layers
    if layers:
        ranks = _suspicion(inspection)
        shown, title = shortened(
            layers,
            lambda layer: ranks[layer.name],
            "suspicion: findings, dead channels, scale",
            all_layers=all_layers,
        )
        console.print()
        console.print(layer_table(shown, title, console.width))
        console.print()
        console.print(strips(shown, console.width))
        console.print(legend(inspection))
    if inspection.against is not None:
        print_comparison(inspection.against, inspection.findings, console, all_layers=all_layers)
    print_findings(inspection.findings, console, layers=max(len(layers), 1))


def about(inspection: Inspection) -> RenderableType:
    """The file, and what it holds."""
    file = inspection.file
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("checkpoint", Text(f"{file.path} ({FORMATS[file.format]}, {size(file.bytes)})"))
    grid.add_row("weights", Text(_weights(file)))
    if file.others:
        others = f"also in the file, for --checkpoint-key: {some(file.others)}"
        grid.add_row("", Text(others, style="dim"))
    grid.add_row("BN layers", Text(_layers(inspection)))
    if file.steps is not None:
        grid.add_row("optimizer", Text(f"{file.steps:,} step{'s' if file.steps > 1 else ''}"))
    for note in inspection.notes:
        grid.add_row("note", Text(note))
    return grid


def _weights(file: FileFacts) -> str:
    where = f"at {file.key}: " if file.key else ""
    return f"{where}{file.tensors:,} tensors, {file.elements:,} elements"


def _layers(inspection: Inspection) -> str:
    layers, lacking = inspection.layers, len(inspection.without_statistics)
    if not layers:
        return f"none with statistics, {lacking} without" if lacking else "none"
    kinds = sorted({layer.kind for layer in layers if layer.kind})
    dtypes = sorted({layer.dtype for layer in layers})
    channels = sum(layer.channels for layer in layers)
    of = f" ({', '.join(kinds)})" if kinds else ""
    without = f"; {lacking} without statistics" if lacking else ""
    return f"{len(layers)}{of}, {channels:,} channels, statistics in {', '.join(dtypes)}{without}"


def _suspicion(inspection: Inspection) -> dict[str, float]:
    ranks = {
        layer.name: layer.dead / layer.channels + 1e-3 * min(layer.largest_scale or 0.0, 500.0)
        for layer in inspection.layers
    }
    for finding in inspection.findings:
        for name in finding.layers:
            if name in ranks:
                ranks[name] += SUSPICION[finding.severity]
    return ranks


def layer_table(layers: Sequence[InspectedLayer], title: str | None, width: int) -> Table:
    """The layers in the order of the file, with as many figures as the terminal has room for."""
    kept = [
        column
        for column in COLUMNS
        if width >= column.from_width
        and (column.header != BAD or any(layer.non_finite for layer in layers))
    ]
    table = table_of_layers([f"{column.group}\n{column.header}" for column in kept], title)
    for layer in layers:
        table.add_row(Text(layer.name or "(top level)"), *(column.cell(layer) for column in kept))
    return table


def strips(layers: Sequence[InspectedLayer], width: int) -> Table:
    """Two histograms a layer: how its variances and its means are spread over the channels."""
    longest = max(len(layer.name) for layer in layers)
    room = min((width - max(8, min(longest, width // 3)) - 2) // 2, LONGEST_STRIP)
    variances, variance_label = _aligned([layer.log_variance for layer in layers], room)
    means, mean_label = _aligned([layer.mean_in_deviations for layer in layers], room)
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=8, vertical="bottom")
    table.add_column(Text(f"log₁₀ var, {variance_label}"))
    table.add_column(Text(f"mean/√var, {mean_label}"))
    for layer, variance, mean in zip(layers, variances, means, strict=True):
        table.add_row(Text(layer.name or "(top level)"), Text(variance), Text(mean))
    return table


def _aligned(histograms: Sequence[Histogram], room: int) -> tuple[list[str], str]:
    """A strip of bars for each histogram, over the bins that any of them uses, and their range.

    Bins are made twice as wide as often as it takes to fit into `room` characters.
    """
    width = histograms[0].width
    counts = [_by_bin(histogram) for histogram in histograms]
    while True:
        used = [i for by_bin in counts for i in by_bin]
        first, last = min(used, default=0), max(used, default=0)
        if last - first < room:
            break
        width *= 2
        counts = [_coarser(by_bin) for by_bin in counts]
    label = f"{first * width:g} to {(last + 1) * width:g}"
    return [_bars([by_bin[i] for i in range(first, last + 1)]) for by_bin in counts], label


def _by_bin(histogram: Histogram) -> Counter[int]:
    """Counts by the number of the bin, in widths from 0."""
    first = round(histogram.low / histogram.width)
    return Counter({first + i: count for i, count in enumerate(histogram.counts) if count})


def _coarser(counts: Counter[int]) -> Counter[int]:
    """Two bins each made one."""
    pairs: Counter[int] = Counter()
    for i, count in counts.items():
        pairs[i // 2] += count
    return pairs


def _bars(counts: Sequence[int]) -> str:
    top = max(counts, default=0)
    if not top:
        return ""
    return "".join(BARS[min(len(BARS) - 1, n * len(BARS) // top)] if n else "·" for n in counts)


def legend(inspection: Inspection) -> RenderableType:
    """What the columns are, in one paragraph."""
    bad = any(layer.non_finite for layer in inspection.layers)
    multiple = inspection.multiple_of_eps
    times = "" if multiple == 1 else f"{multiple:g} times "
    text = (
        "n: num_batches_tracked; mean, var, |γ|: over the channels; scale: the largest "
        f"|γ|/√(var + eps); dead: channels whose variance is below {times}eps"
        f"{f'; {BAD}: channels with NaN or infinity' if bad else ''}. Strips: how many channels "
        "lie where, from the least to the largest value in the table; █: the layer's fullest bin."
    )
    return Padding(Text(text, style="dim"), (1, 0, 0, 0))


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value == value // 1 and abs(value) < 1e7 else short(value)
