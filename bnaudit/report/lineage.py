"""A comparison with a parent checkpoint in the terminal: what changed, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report.numbers import short
from bnaudit.report.tables import WIDE, shortened, some, table_of_layers
from bnaudit.results.comparison import ComparedLayer, Comparison
from bnaudit.results.findings import Finding

WORDS = {
    "BN050": "stale",
    "BN051": "drifted",
    "BN052": "mixed",
    "BN053": "reset",
}
"""What a layer is called that one of these findings names."""

STYLES = {"stale": "yellow", "drifted": "yellow", "mixed": "yellow", "reset": "bold red"}

HEADERS = ("stat.", "out", "own w", "up w", "n", "what")
NAMED = 1e6
"""What being named by a finding weighs where a long table is shortened."""

DETAILS = ("stat.",)
"""Left out in a narrow terminal; the document has it."""

LEGEND = (
    "out: how far the statistics are from the parent's, in standard deviations, weighted by γ²"
    "{all}; own w: relative change of the weights that feed the layer, up w: the largest up to "
    "there; n: num_batches_tracked, of the parent → here."
)
ALL = "; stat.: all channels alike"


def print_comparison(
    comparison: Comparison,
    findings: Sequence[Finding],
    console: Console,
    *,
    all_layers: bool = False,
) -> None:
    """What the two files have in common, and a row for every layer that both have."""
    console.print(Text(f"\nAgainst {comparison.parent}", style="bold"))
    console.print(about(comparison))
    if comparison.layers and not (comparison.statistics_equal and comparison.weights_equal):
        console.print()
        console.print(layer_table(comparison, findings, console.width, all_layers=all_layers))
        legend = LEGEND.format(all=ALL if console.width >= WIDE else "")
        console.print(Padding(Text(legend, style="dim"), (1, 0, 0, 0)))


def about(comparison: Comparison) -> RenderableType:
    """The network level: weights, statistics, tensors that are not in both."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    others = [parent for parent in comparison.parents if parent != comparison.parent]
    if others:
        grid.add_row("parents", Text(f"the nearest of {len(comparison.parents)}: {some(others)}"))
    grid.add_row("read at", Text(comparison.key or "the top level of the file"))
    grid.add_row("weights", Text(_weights(comparison)))
    grid.add_row("statistics", Text(_statistics(comparison)))
    tensors = _tensors(comparison)
    if tensors:
        grid.add_row("tensors", Text(tensors))
    if not comparison.ordered:
        text = "the files keep no order of tensors: what is upstream of a layer is not known"
        grid.add_row("note", Text(text))
    return grid


def _weights(comparison: Comparison) -> str:
    weights = comparison.weights
    if comparison.weights_equal:
        return f"the same, all {weights.elements:,}"
    parts = [
        f"{_percent(weights.changed_share)} of {weights.elements:,} changed",
        f"relative change {short(weights.relative_change)}",
    ]
    if weights.infinite:
        parts.append(f"{weights.infinite:,} became infinite")
    for what, both in (
        ("zeros", (weights.sparsity_before, weights.sparsity_after)),
        ("distinct values", (weights.distinct_before, weights.distinct_after)),
    ):
        before, after = (None if share is None else _percent(share) for share in both)
        if before is not None and after is not None and before != after:
            parts.append(f"{what} {before} → {after}")
    if weights.shares is not None:
        shares = " + ".join(f"{short(share)}" for share in weights.shares)
        parts.append(f"a mixture of the parents, {shares}")
    return "; ".join(parts)


def _statistics(comparison: Comparison) -> str:
    layers = comparison.layers
    if not layers:
        return "no BatchNorm layer is in both"
    counts = {
        "exactly the parent's": sum(layer.statistics == "equal" for layer in layers),
        "rounded": sum(layer.statistics == "rounded" for layer in layers),
        "moved": sum(layer.statistics == "moved" and not layer.reset for layer in layers),
        "reset": sum(layer.reset for layer in layers),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"of {len(layers)} layers: {told}"


def _tensors(comparison: Comparison) -> str:
    parts = (
        (comparison.added, "only here"),
        (comparison.removed, "only in the parent"),
        (comparison.reshaped, "of another shape"),
        (comparison.retyped, "of another type"),
    )
    return "; ".join(f"{len(names)} {what} ({some(names, 2)})" for names, what in parts if names)


def layer_table(
    comparison: Comparison, findings: Sequence[Finding], width: int, *, all_layers: bool
) -> RenderableType:
    """The layers in the child's order; a long table is shortened to those that moved most."""
    words = {
        name: WORDS[finding.code]
        for finding in reversed(findings)
        if finding.code in WORDS
        for name in finding.layers
    }
    shown, title = shortened(
        comparison.layers,
        lambda layer: _badness(layer, words),
        "change (findings first)",
        all_layers=all_layers,
    )
    kept = [i for i, header in enumerate(HEADERS) if width >= WIDE or header not in DETAILS]
    table = table_of_layers([HEADERS[i] for i in kept], title)
    for layer in shown:
        what = words.get(layer.name, _plainly(layer))
        upstream = layer.largest_upstream_change
        cells = (
            _figure(layer.distance),
            Text(_figure(layer.output_distance), style="bold"),
            _figure(layer.own_change),
            _figure(upstream) if comparison.ordered else "?",
            _counts(layer),
            Text(what, style=STYLES.get(what, "")),
        )
        table.add_row(Text(layer.name or "(top level)"), *(cells[i] for i in kept))
    return table


def _badness(layer: ComparedLayer, words: dict[str, str]) -> float:
    """Layers that findings name before all others, then how far each moved."""
    moved = (layer.output_distance or 0.0) + (layer.own_change or 0.0)
    far = min(moved, NAMED) if math.isfinite(moved) else NAMED
    return far + (NAMED if layer.name in words else 0.0)


def _plainly(layer: ComparedLayer) -> str:
    """What became of a layer that no finding names."""
    weights = bool(layer.own_change) or bool(layer.largest_upstream_change)
    if layer.statistics == "moved":
        return "both moved" if weights else "moved"
    if layer.statistics == "rounded":
        return "rounded"
    return "weights moved" if weights else "same"


def _counts(layer: ComparedLayer) -> str:
    before, after = _count(layer.n_before), _count(layer.n_after)
    return before if before == after else f"{before}→{after}"


def _count(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e7 else short(value)


def _figure(value: float | None) -> str:
    """A plain 0 for what is the same in every bit."""
    return "0" if value == 0 else short(value)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
