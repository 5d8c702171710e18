"""An Audit in the terminal: what was loaded, the verdict, the layers, the network."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report.attribution import print_attribution
from bnaudit.report.bound import bound
from bnaudit.report.findings import print_findings
from bnaudit.report.loaded import loaded
from bnaudit.report.numbers import interval, loss, percent, short
from bnaudit.report.tables import LONG_TABLE, WIDE, shortened, table_of_layers
from bnaudit.results import Audit, LayerAudit, NetworkAudit, Score, TrainedOn

COLUMNS = ("ch", "ESM", "95% int.", "mean", "scale", "out", "worst", "floor", "disc", "noise")
DETAILS = ("ch", "mean", "scale", "worst")
"""Left out in a narrow terminal; they are in `layers.csv`."""

BARS = "▁▂▃▄▅▆▇█"

VERDICT_STYLE = {
    "healthy": "bold green",
    "broken": "bold red",
    "shifted": "bold red",
    "undecided": "bold yellow",
    "nothing-to-audit": "bold",
}

STATUS_HEADLINES = {
    "batch-dependent": "no running statistics",
    "unverified": "unverified, without figures",
    "never-called": "never called",
    "empty-input": "only empty inputs",
    "not-audited": "not audited",
}


def print_audit(audit: Audit, console: Console, *, all_layers: bool = False) -> None:
    """Everything the Audit holds, in the order in which a reader asks."""
    console.print(about(audit))
    if audit.verdict is not None:
        style = VERDICT_STYLE[audit.verdict.level]
        console.print(Text("\n" + audit.verdict.sentence, style=style))
    if audit.trained_on is not None:
        console.print(Text(on_training_data(audit.trained_on)))
    layers = audit.audited
    if layers:
        console.print()
        console.print(layer_table(audit, console.width, all_layers=all_layers))
        if len(layers) > LONG_TABLE and not all_layers:
            console.print(depth_strip(layers, console.width))
        console.print(legend(audit))
    print_attribution(audit, console, all_layers=all_layers)
    rest = without_figures(audit)
    if rest is not None:
        console.print()
        console.print(rest)
    if audit.network is not None:
        console.print()
        console.print(network(audit.network))
    print_findings(audit.findings, console, layers=len(audit.layers))


def about(audit: Audit) -> RenderableType:
    """What was loaded: model, checkpoint, data, device."""
    data = {} if audit.data is None else {"data": audit.data}
    if audit.trained_on is not None:
        data["training data"] = audit.trained_on.data
    grid = loaded(audit.model, data, f"{audit.device}, {audit.dtype}")
    if audit.run_time is not None:
        grid.add_row("time", Text(bound(audit.run_time, audit.device, audit.dtype)))
    for note in audit.notes:
        grid.add_row("note", Text(note))
    return grid


def on_training_data(found: TrainedOn) -> str:
    """How far the estimates are from the training data, and the data from those, at the most."""
    if not found.layers:
        return "On the training data no layer has figures."
    worst = max(found.layers, key=lambda layer: layer.shift.value)
    text = f"On the training data the largest output shift is {short(worst.shift.value)}"
    text += f" ({worst.name}): how wrong the estimates are by themselves"
    moved = [(layer, layer.moved) for layer in found.layers if layer.moved is not None]
    if moved:
        farthest, estimate = max(moved, key=lambda pair: pair[1].value)
        text += f"; from there the data moved by at most {short(estimate.value)} ({farthest.name})"
    score = "" if found.score is None else f"; top-1 accuracy there {percent(found.score.accuracy)}"
    return f"{text}{score}."


def layer_table(audit: Audit, width: int, *, all_layers: bool) -> RenderableType:
    """The layers in call order; a long table is shortened to the worst by output shift.

    A terminal narrower than `WIDE` columns gets fewer figures a layer, none of them cut.
    """
    layers = audit.audited
    shown, title = shortened(layers, _badness, "output shift", all_layers=all_layers)
    kept = [i for i, header in enumerate(COLUMNS) if width >= WIDE or header not in DETAILS]
    table = table_of_layers([COLUMNS[i] for i in kept], title)
    for layer in shown:
        name, *figures = _cells(layer)
        table.add_row(name, *(figures[i] for i in kept))
    return table


def _badness(layer: LayerAudit) -> float:
    estimate = layer.output_shift or layer.total_shift
    return estimate.value if estimate else float("inf")


def _cells(layer: LayerAudit) -> list[str | Text]:
    name = layer.name + (f" ×{layer.calls_per_forward}" if layer.calls_per_forward > 1 else "")
    if layer.total_shift is None:
        return [Text(name), str(layer.channels), *["–"] * 9]
    output = layer.output_shift
    worst = f"{short(layer.worst_channel_shift)} #{layer.worst_channel}"
    return [
        Text(name),
        str(layer.channels),
        Text(short(layer.total_shift.value), style="bold"),
        interval(layer.total_shift),
        short(layer.mean_part),
        short(layer.scale_part),
        Text(short(output.value if output else None), style="bold"),
        worst,
        short(layer.total_shift.noise_floor),
        short(layer.discrepancy),
        short(layer.batch_noise),
    ]


def depth_strip(layers: list[LayerAudit], width: int) -> Text:
    """One bar a layer in call order, the tallest the largest output shift."""
    values = [e.value if (e := layer.output_shift) else 0.0 for layer in layers]
    top = max(values) or 1.0
    bars = "".join(BARS[min(len(BARS) - 1, int(v / top * len(BARS)))] for v in values)
    worst = layers[values.index(max(values))]
    lines = [bars[i : i + width - 2] for i in range(0, len(bars), max(width - 2, 1))]
    text = f"\nOutput shift by depth, first to last call (█ = {short(top)}, {worst.name})\n"
    return Text(text + "\n".join(lines))


def legend(audit: Audit) -> RenderableType:
    """What the columns are, in one paragraph."""
    size = audit.batch_statistics_size
    text = (
        "ESM: RMS error of the normalised activation in standard deviations, less what sampling "
        "adds (floor); mean, scale: its two parts, and worst: the largest channel, as computed; "
        f"out: ESM weighted by γ²; disc, noise: discrepancy at mini-batches of {size}, and the "
        "part of it that no recalibration removes."
    )
    return Padding(Text(text, style="dim"), (1, 0, 0, 0))


def without_figures(audit: Audit) -> RenderableType | None:
    """Layers that have no figures, by reason."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for layer in audit.layers:
        if layer.status != "audited":
            groups.setdefault((layer.status, layer.note), []).append(layer.name)
    undefined = [layer for layer in audit.audited if layer.undefined_channels]
    if not groups and not undefined:
        return None
    lines: list[RenderableType] = []
    for (status, note), names in groups.items():
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        reason = f" ({note})" if note else ""
        lines.append(Text(f"{len(names)} layers {STATUS_HEADLINES[status]}: {shown}{reason}"))
    for layer in undefined:
        count = len(layer.undefined_channels)
        lines.append(
            Text(
                f"{layer.name}: {count} channels undefined (running_var + eps ≤ 0, or not finite)",
                style="red",
            )
        )
    return Group(*lines)


def network(result: NetworkAudit) -> RenderableType:
    """The network's figures: a small table of scores and a line of differences."""
    lines: list[RenderableType] = []
    if result.deployed is not None:
        table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
        table.add_column("network")
        for header in ("samples", "top-1", "loss"):
            table.add_column(header, justify="right")
        _score_row(table, "deployed (estimated statistics)", result.deployed)
        if result.deployed_compared and result.deployed_compared != result.deployed:
            _score_row(table, "deployed, same samples as below", result.deployed_compared)
        name = f"mini-batch statistics at {result.batch_size}"
        if result.batch_statistics:
            _score_row(table, name, result.batch_statistics)
        lines.append(table)
    facts = []
    if result.agreement is not None:
        facts.append(
            f"top-1 agreement of the two {percent(result.agreement)}, mean KL "
            f"{short(result.kl)} nats"
        )
    if result.relative_rms is not None:
        facts.append(f"relative RMS difference of the outputs {short(result.relative_rms)}")
    facts += [f"{name} {short(value)}" for name, value in result.custom.items()]
    if facts:
        lines.append(
            Text(
                f"estimates against mini-batch statistics at {result.batch_size}, "
                f"{result.compared:,} samples: " + "; ".join(facts)
            )
        )
    if result.not_comparable:
        lines.append(Text(f"not comparable: {', '.join(result.not_comparable[:6])}"))
    if result.kept_estimates:
        names = ", ".join(result.kept_estimates)
        lines.append(Text(f"kept their estimates (one value a channel): {names}"))
    if result.note:
        lines.append(Text(result.note))
    return Group(*lines)


def _score_row(table: Table, name: str, score: Score) -> None:
    table.add_row(name, f"{score.samples:,}", percent(score.accuracy), loss(score.loss))
