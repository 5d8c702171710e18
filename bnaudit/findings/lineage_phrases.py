"""What rules over a lineage share: which layers belong together, and parts of their sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath

from bnaudit.findings.phrases import number
from bnaudit.results.lineage import LayerLineage, Lineage
from bnaudit.results.state import State

SAME_WEIGHTS = 1e-5
"""Relative change of weights that another order of float32 sums makes."""

SMALLEST_SHARE = 1e-6
"""A share that is written as none: float32 resolves no smaller one."""

ROUNDING = 1e-12
"""What float64 leaves of a distance that is none."""


def dummy_forwards(lineage: Lineage, same_weights: float) -> tuple[LayerLineage, ...]:
    """The layers that forwards on zeros went through, in the order of the network.

    Those whose statistics are the parent's mixed with zeros, and, as only the first layers of a
    network receive zeros then, the others that moved with the same weights and the same count.
    `same_weights`: the relative change up to which weights count as the same.
    """
    zeros = [
        layer
        for layer in lineage.layers
        if layer.mixture is not None and layer.mixture.kind == "zero-batches"
    ]
    counts = {layer.passes for layer in zeros}
    if not any(lineage.change_before(layer) <= same_weights for layer in zeros):
        return tuple(zeros)
    return tuple(
        layer
        for layer in lineage.layers
        if layer in zeros
        or (
            layer.passes in counts
            and moved_otherwise(layer)
            and lineage.change_before(layer) <= same_weights
        )
    )


def moved_otherwise(layer: LayerLineage) -> bool:
    """Whether statistics moved, and neither a reset nor a mixture says how."""
    return layer.statistics == "moved" and not layer.reset and layer.mixture is None


def passes(layers: Sequence[LayerLineage]) -> tuple[float, float] | None:
    """By how much the counters advanced, at least and at most; None where no layer tells."""
    counts = [layer.passes for layer in layers if layer.passes is not None]
    counts = [count for count in counts if math.isfinite(count)]
    return (min(counts), max(counts)) if counts else None


def file_name(state: State) -> str:
    """What a checkpoint is called, without its folder."""
    return PurePath(state.source).name or state.source


def percent(share: float) -> str:
    """`25%`, `0.31%`, `140%`: two digits, or all before the point."""
    if not math.isfinite(share):
        return "an infinite amount"
    if abs(share) < SMALLEST_SHARE:
        return "0%"
    return f"{100 * share:.0f}%" if share >= 0.995 else f"{100 * share:.2g}%"


def distance(value: float) -> str:
    """A `number`; 0 for what is only rounding, `infinite` for what is beyond measure."""
    if not math.isfinite(value):
        return "infinite"
    return number(value if abs(value) > ROUNDING else 0.0)
