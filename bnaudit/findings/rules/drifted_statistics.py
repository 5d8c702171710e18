"""Statistics that moved without their weights: BN051."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bnaudit.findings.lineage_phrases import (
    SAME_WEIGHTS,
    distance,
    dummy_forwards,
    file_name,
    moved_otherwise,
    passes,
)
from bnaudit.findings.phrases import plural, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.results.lineage import LayerLineage, Lineage

MOST = 0.75
"""Share of the layers that have to keep their statistics for the others to be told from training,
which moves all of them."""


@rule(
    "BN051",
    "drifted-statistics",
    "warning",
    Lineage,
    means="Everything before these layers is the parent's, weight for weight, and yet their "
    "statistics moved: forwards in train mode went over other data, or something wrote them.",
    computed="`c ≤ weights` (BN050) up to the layer, no tensor there without its counterpart, and "
    "`√(Σγ²d²/Σγ²) > distance`: the output shift (BN101) that the child's statistics have where "
    "the parent's are taken for the expected ones, so that a pruned channel (`γ = 0`, `v̂` about "
    "0) does not count; over all channels alike where γ is absent or 0 everywhere. Layers that "
    "BN052 or BN053 explain are left out. `num_batches_tracked` tells "
    "how many batches went through, where both files have it. Behind weights that changed, a "
    "layer is named where three quarters of all keep their statistics exactly and no batch was "
    "counted; where none are counted, where its own weights are the same or a layer behind it "
    "keeps its statistics: training moves all of them, or those of the last part.",
    matters="Frozen weights were trained with the old statistics. Setting `requires_grad` to "
    "False, or the learning rate to 0, freezes no buffer: every forward in train mode moves them "
    "towards the new data, and the frozen part then answers differently on the old. Ranks that "
    "keep buffers of their own do the same.",
    remedy="Copy running_mean, running_var and num_batches_tracked of these layers from the "
    "parent, and keep them in eval() while the rest trains (broadcast or reduce the buffers "
    "between ranks). Where new statistics are wanted (other data, a recalibration), verify them: "
    "bnaudit recalibrate does.",
    source="pytorch issues 86590, 13711, 30718; Lightning issues 15062, 13902; robustdg issue 30, "
    "sparseml issue 756",
    thresholds=(
        Threshold(
            "distance",
            0.02,
            "RMS distance, weighted by γ², in standard deviations of the normalised activation. "
            "The noise of a moving average at momentum .1 makes about this much, below it is "
            "information.",
        ),
        Threshold(
            "weights",
            SAME_WEIGHTS,
            "Relative change of weights, without unit, up to which they count as the same: what "
            "another order of float32 sums makes.",
        ),
    ),
    unless=("BN001", "BN002"),
)
def drifted_statistics(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    """Statistics that moved by themselves."""
    elsewhere = {layer.name for layer in dummy_forwards(lineage, limits["weights"])}
    moved = [
        x
        for x in lineage.layers
        if x.name not in elsewhere and moved_otherwise(x) and _was_finite(lineage, x)
    ]
    alone = [x for x in moved if lineage.change_before(x) <= limits["weights"]]
    if alone:
        yield _found(lineage, alone, limits, _unchanged(lineage) + _counted(alone))
    written = [x for x in _written(lineage, moved) if x not in alone]
    if written:
        kept = plural(sum(x.kept for x in lineage.layers), "other layer")
        text = f"{kept} keep the parent's exactly: no training leaves them so"
        yield _found(lineage, written, limits, text)


def _was_finite(lineage: Lineage, layer: LayerLineage) -> bool:
    """What was NaN or infinite in the parent has been mended, and has not drifted."""
    before = lineage.parent[layer.parent_name]
    return bool(np.isfinite(before.running_mean + before.running_var).all())


def _found(lineage: Lineage, moved: Sequence[LayerLineage], limits: Limits, beside: str) -> Found:
    # "not <=": a layer that lost its finite values has moved beyond any distance.
    grave = [x for x in moved if not x.output_distance.total <= limits["distance"]]
    drifted = grave or moved
    names = tuple(x.name for x in drifted)
    text = (
        f"the statistics of {which_layers(names, len(lineage.layers))} are off those of "
        f"{file_name(lineage.parent)} by {_distances(drifted)}, while {beside}"
    )
    if len(moved) > len(drifted):
        text += f"; {plural(len(moved) - len(drifted), 'other layer')} moved less"
    recalibrated = lineage.network.recalibrated
    if recalibrated:
        text += "; bnaudit's record beside the file says that it was recalibrated"
    nothing = "It was done on purpose, and verified then: nothing to do."
    return Found(
        upper_first(text) + ".",
        layers=names,
        evidence={
            "largest_distance": max(_or_infinite(x.output_distance.total) for x in drifted),
            "distances": {x.name: x.output_distance.total for x in drifted},
            "passes": {x.name: x.passes for x in drifted},
            "weights_equal": lineage.weights_equal,
            "recalibrated": recalibrated,
        },
        severity="warning" if grave and not recalibrated else "info",
        remedy=nothing if recalibrated else None,
    )


def _written(lineage: Lineage, moved: Sequence[LayerLineage]) -> list[LayerLineage]:
    """Layers behind changed weights whose statistics yet no training moved.

    Most others keep theirs, and no batch was counted; where none are counted, the layer's own
    weights are the same, or a layer behind it keeps its statistics: parts that train stand last.
    """
    layers = [x for x in lineage.layers if not x.reset]
    kept = [x for x in layers if x.kept]
    if not kept or len(kept) < MOST * len(layers):
        return []
    last = layers.index(kept[-1]) if lineage.network.ordered else -1
    return [
        x
        for x in moved
        if x.passes == 0 or (x.passes is None and (x.own.equal or layers.index(x) < last))
    ]


def _unchanged(lineage: Lineage) -> str:
    if lineage.weights_equal:
        return "every weight of the network is the same"
    return "the weights before are the same (a frozen part?)"


def _distances(layers: Sequence[LayerLineage]) -> str:
    totals = [_or_infinite(x.output_distance.total) for x in layers]
    low, high = distance(min(totals)), distance(max(totals))
    spread = high if low == high else f"{low} to {high}"
    if high == distance(0.0):
        return "0 standard deviations (only channels moved whose gamma is 0)"
    if len(layers) > 1:
        return f"{spread} standard deviations"
    parts = layers[0].output_distance
    return (
        f"{spread} standard deviations (means {distance(parts.mean_part)}, scales "
        f"{distance(parts.scale_part)})"
    )


def _counted(layers: Sequence[LayerLineage]) -> str:
    counts = passes(layers)
    if counts is None:
        return ""
    low, high = counts
    if low == high == 0:
        return ", and so are the counters: no forwards since then did it"
    if low == high and low > 0:
        return f"; {plural(round(low), 'batch', 'batches')} went through in train mode"
    return f"; counters went by {low:,.0f} to {high:,.0f}"


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value
