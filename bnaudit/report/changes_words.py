"""What changed between two Audits, in words: the figures that moved beyond noise, in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bnaudit.report.judged import printable
from bnaudit.report.numbers import loss, points, short, signed, signed_loss, span
from bnaudit.results import Changes, Difference, Finding, LayerChange, NetworkChange

Writer = Callable[[float | None], str]
Mark = Literal["worse", "better", ""]


def _hundred(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}"


@dataclass(frozen=True)
class Unit:
    """How a figure is called and written.

    `said`: its name in a sentence. `worse`: the sign of a change that nobody wants. `after`,
    `after_difference`: what follows the figure in a sentence.
    """

    name: str
    said: str
    write: Writer
    write_difference: Writer
    worse: Literal[1, -1] = 1
    after: str = ""
    after_difference: str = ""


UNITS = {
    "accuracy": Unit("accuracy, %", "accuracy", _hundred, points, -1, "%", " points"),
    "loss": Unit("loss", "loss", loss, signed_loss),
    "disagreement": Unit("disagreement, %", "disagreement", _hundred, points, 1, "%", " points"),
    "total_esm": Unit("output shift, RMS", "the output shift over all layers", short, signed),
    "layer_esm": Unit("output shift, largest", "the largest output shift", short, signed),
}
"""The figures of the network, what a user cares for most first."""

SHIFT = Unit("output shift", "the output shift", short, signed)


def network_changes(changes: Changes) -> list[NetworkChange]:
    """The figures of the network, what a user cares for most first."""
    order = list(UNITS)
    return sorted(changes.network, key=lambda item: order.index(item.figure))


def mark(change: Difference | None, unit: Unit = SHIFT) -> Mark:
    """Which way a figure moved beyond noise; empty where it did not."""
    if change is None or not change.significant:
        return ""
    return "worse" if change.difference * unit.worse > 0 else "better"


def cells(change: Difference, unit: Unit) -> tuple[str, str, str, str]:
    """Before, after, the difference and its 95% interval, as they are printed."""
    return (
        unit.write(change.before),
        unit.write(change.after),
        unit.write_difference(change.difference),
        span(change.low, change.high, unit.write_difference),
    )


def summary(changes: Changes) -> str:
    """What matters, in one paragraph: figures of the network, layers, findings."""
    compared = [layer for layer in changes.layers if layer.output_shift is not None]
    if not compared and not changes.network:
        return "Nothing can be compared: no layer and no output has figures on both sides."
    parts = [_network(item) for item in network_changes(changes) if item.change.significant]
    parts += _layers(compared)
    said = "; ".join(parts) or _nothing(compared, changes)
    found = _findings(changes)
    return printable(said[:1].upper() + said[1:] + "." + (f" {found}" if found else ""))


def _network(item: NetworkChange) -> str:
    unit, change = UNITS[item.figure], item.change
    verb = "fell" if change.difference < 0 else "rose"
    by = unit.write_difference(abs(change.difference)).lstrip("+") + unit.after_difference
    figures = f"from {unit.write(change.before)} to {unit.write(change.after)}{unit.after}"
    return f"{unit.said} {verb} by {by} ({figures})"


def _layers(compared: list[LayerChange]) -> list[str]:
    up = [layer for layer in compared if mark(layer.output_shift) == "worse"]
    down = [layer for layer in compared if mark(layer.output_shift) == "better"]
    parts = []
    if up:
        parts.append(f"output shift grew in {len(up)} of {len(compared)} layers, {_most(up)}")
    if down:
        parts.append(f"output shift fell in {len(down)} of {len(compared)} layers, {_most(down)}")
    return parts


def _most(layers: list[LayerChange]) -> str:
    name, change = max(
        ((layer.name, layer.output_shift) for layer in layers if layer.output_shift is not None),
        key=lambda pair: abs(pair[1].difference),
    )
    most = "most in " if len(layers) > 1 else ""
    where = f"layer {name}" if name.isdecimal() else name
    return f"{most}{where} ({short(change.before)} to {short(change.after)})"


def _nothing(compared: list[LayerChange], changes: Changes) -> str:
    layers = f"{len(compared)} {'layer' if len(compared) == 1 else 'layers'}"
    figures = len(changes.network)
    network = f" and {figures} figure{'s' * (figures > 1)} of the network" if figures else ""
    limits = [layer.output_shift for layer in compared]
    limits += [item.change for item in changes.network]
    if all(change is None or change.surely_low is None for change in limits):
        return (
            f"whether anything changed cannot be told: {layers}{network} compared, none of them "
            "with an interval"
        )
    return f"nothing changed beyond noise: {layers}{network} compared"


def _findings(changes: Changes) -> str:
    gained, lost = len(changes.gained), len(changes.lost)
    parts = []
    if gained:
        codes = _codes(changes.gained)
        parts.append(f"{gained} {'finding is' if gained == 1 else 'findings are'} new ({codes})")
    if lost:
        findings = "" if gained else "finding " if lost == 1 else "findings "
        codes = _codes(changes.lost)
        parts.append(f"{lost} {findings}{'is' if lost == 1 else 'are'} gone ({codes})")
    return ", ".join(parts) + "." if parts else ""


def _codes(findings: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(finding.code for finding in findings))
