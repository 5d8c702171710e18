"""Where the shift of an Audit comes from, in the terminal: own and inherited, and which layers."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from bnaudit.report.numbers import interval, short
from bnaudit.report.tables import WIDE, shortened, some, table_of_layers
from bnaudit.results import Attribution, Audit, LayerAudit

TREND = 0.5
"""A rank correlation with depth that is called a trend."""

HEADERS = ("total", "own", "95% int.", "inherited", "total/own", "own out")

LEGEND = (
    "own: ESM with every layer upstream corrected, its interval conditional on the statistics "
    "there; inherited: what upstream adds; total ≤ own + inherited, for they can also cancel; "
    "total/own only where own is above zero for certain"
)
OWN_OUTPUT = "; own out: own weighted by γ²"

EFFECTS = {"kl": ("mean KL", " nats"), "relative_rms": ("relative RMS difference", "")}


def print_attribution(audit: Audit, console: Console, *, all_layers: bool = False) -> None:
    """A table of total, own and inherited shift, and in words what it comes to."""
    found = audit.attribution
    if found is None:
        return
    layers = [layer for layer in audit.audited if layer.attributed_shift is not None]
    samples = f"{found.samples:,} samples"
    console.print(Text(f"\nWhere the shift comes from ({samples})", style="bold"))
    if layers:
        console.print(_table(layers, console.width, all_layers=all_layers))
        legend = LEGEND + (OWN_OUTPUT if console.width >= WIDE else "") + "."
        console.print(Padding(Text(legend, style="dim"), (1, 0, 1, 0)))
    for sentence in sentences(found, layers):
        console.print(Text(sentence))


def sentences(found: Attribution, layers: list[LayerAudit]) -> list[str]:
    """What the figures come to: accumulation over depth, and how few layers matter."""
    said = [accumulation(found), _more_inherited(layers), few_layers(found, len(layers))]
    if found.note:
        said.append(found.note)
    return [sentence for sentence in said if sentence]


def accumulation(found: Attribution) -> str | None:
    """Whether the total shift follows depth. A correlation is no proof that it is handed on."""
    parts = []
    if found.spearman is not None:
        if found.spearman >= TREND:
            trend = "The total shift grows with depth"
        elif found.spearman <= -TREND:
            trend = "The total shift falls with depth"
        else:
            trend = "The total shift has no clear trend over depth"
        parts.append(f"{trend} (rank correlation {found.spearman:+.2f})")
    if found.first_third is not None and found.last_third is not None:
        first, last = short(found.first_third), short(found.last_third)
        thirds = f"RMS {first} over the first third of the layers, {last} over the last"
        parts.append(thirds if parts else f"Total shift: {thirds}")
    return ": ".join(parts) + "." if parts else None


def _more_inherited(layers: list[LayerAudit]) -> str | None:
    """The layers that are off mainly for what stands upstream: only where own can be told."""
    told = [
        layer
        for layer in layers
        if layer.own_shift is not None
        and layer.total_shift is not None
        and layer.total_shift.low  # there is a shift at all
        and layer.own_shift.high is not None
        and layer.inherited_shift is not None
    ]
    if not told:
        return None
    more = sum(
        (layer.inherited_shift or 0.0) > (layer.own_shift.high or 0.0)
        for layer in told
        if layer.own_shift is not None
    )
    return (
        f"More is inherited than own, beyond the interval of own, in {more} of "
        f"{_count(len(told), 'layer')}."
    )


def few_layers(found: Attribution, layers: int) -> str | None:
    """How few layers matter: those whose recalibration alone nearly does what all of them do."""
    names = found.layers_that_matter
    if names is None:
        return (
            f"How few layers matter is not known: {found.search_note}"
            if found.search_note
            else None
        )
    on = f" ({found.search_samples:,} samples)" if found.search_samples else ""
    if not names:
        return f"Correcting the statistics hardly changes the outputs{on}: no layer matters."
    effect = _effect(found)
    if layers and len(names) >= layers:
        return (
            f"No few layers matter: recalibrating fewer than all {layers} of them does not bring "
            f"the outputs within a tenth of the full correction{on}.{effect}"
        )
    start = "Few layers matter: recalibrating" if len(names) <= layers / 4 else "Recalibrating"
    return (
        f"{start} {len(names)} of {_count(layers, 'layer')} alone, by largest own output shift "
        f"({some(names)}), brings the outputs within a tenth of the full correction{on}"
        f".{effect}"
    )


def _effect(found: Attribution) -> str:
    if found.effect is None or found.full_effect is None:
        return ""
    what, unit = EFFECTS[found.effect]
    text = f" The full correction moves them by a {what} of {short(found.full_effect)}{unit}"
    if found.left_effect:
        text += f"; from there, that of those layers alone is {short(found.left_effect)} away"
    return text + "."


def _table(layers: list[LayerAudit], width: int, *, all_layers: bool) -> RenderableType:
    shown, title = shortened(layers, _own_output, "own output shift", all_layers=all_layers)
    headers = HEADERS if width >= WIDE else HEADERS[:-1]
    table = table_of_layers(headers, title)
    for layer in shown:
        own, output = layer.own_shift, layer.own_output_shift
        figures = (
            Text(short(layer.attributed_shift), style="bold"),
            Text(short(own.value if own else None), style="bold"),
            interval(own) if own else "–",
            short(layer.inherited_shift),
            ratio(layer),
            short(output.value if output else None),
        )
        table.add_row(Text(layer.name), *figures[: len(headers)])
    return table


def ratio(layer: LayerAudit) -> str:
    """`1.83`: total over own; a dash unless the lower limit of own is above zero."""
    own, total = layer.own_shift, layer.attributed_shift
    if own is None or total is None or not own.low or own.low <= 0 or own.plain <= 0:
        return "–"
    return short(total / own.plain)


def _own_output(layer: LayerAudit) -> float:
    estimate = layer.own_output_shift or layer.own_shift
    return estimate.value if estimate else 0.0


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
