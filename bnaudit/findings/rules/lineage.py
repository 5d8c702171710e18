"""Weights without their statistics, and statistics without their weights: BN050 and BN051."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bnaudit.findings.lineage_phrases import (
    SAME_WEIGHTS,
    dummy_forwards,
    figure,
    file_name,
    passes,
    percent,
)
from bnaudit.findings.phrases import plural, recalibrate_command, some_of, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.rules.never_estimated import is_initial
from bnaudit.results.lineage import LayerLineage, Lineage


@rule(
    "BN050",
    "stale-statistics",
    "warning",
    Lineage,
    means="Weights at or before these layers changed, and their statistics are exactly the "
    "parent's: they describe activations that no longer exist.",
    computed="`m̂` and `v̂` equal the parent's bit for bit, or rounded to half precision, and "
    "`c = ‖w − w₀‖/‖w₀‖ > change` for the tensors between some layer and the one before it, up "
    "to here, in the order of the file (gamma and beta of the layers before included). Weights "
    "behind the last layer do not count, nor what only rounding to half precision changed. Where "
    "the file keeps no order (safetensors sorts by name), only the tensors that feed the layer "
    "itself, told by their names. What it suggests: new exact zeros, *pruned*; few distinct "
    "values in a row of a weight, or integers, *quantised*; `n_averaged`, counts that are not "
    "integers, a key that says so, or weights that are a mixture of the parents, *averaged*.",
    matters="The variance of what a layer receives depends on every weight before it: the average "
    "of two networks has smaller activations than either (Jordan et al. 2022, REPAIR), pruned "
    "weights too, and the error grows from layer to layer (Huang 2022).",
    remedy="Recalibrate on data like the training data, and let the verification decide: layers "
    "that were frozen on purpose while the weights were fine-tuned are meant to keep these "
    "statistics, the weights have adapted to them, and recalibration can hurt.",
    source="pytorch issue 49082, timgaripov/swa issue 8, NNCF issue 41, MetaPruning issue 4; Wu "
    "2021 (arXiv:2105.07576), section 3; Jordan et al. 2022 (arXiv:2211.08403)",
    thresholds=(
        Threshold(
            "change",
            0.01,
            "Relative change of weights, without unit. A change by c in random directions moves "
            "a normalised activation by about c; below .01 it is only information.",
        ),
        Threshold(
            "smallest",
            1e-4,
            "Relative change of weights, without unit, from which on it is mentioned at all.",
        ),
        Threshold(
            "zeros",
            0.05,
            "Share of all weights, 0 to 1, that became exactly 0, from which on they are called "
            "pruned.",
        ),
        Threshold(
            "distinct",
            0.9,
            "Share of the distinct values in a row of a weight that are left, from which down "
            "they are called quantised. 8 bits leave about half in a row of 144; float16 .97.",
        ),
    ),
)
def stale_statistics(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    """Statistics that did not follow the weights."""
    kept = [x for x in lineage.layers if x.kept and not is_initial(lineage.child[x.name])]
    changes = {x.name: _known(lineage, x) for x in kept}
    grave = [x for x in kept if changes[x.name] > limits["change"]]
    stale = grave or [x for x in kept if changes[x.name] > limits["smallest"]]
    if not stale:
        return
    names = tuple(x.name for x in stale)
    cause, because = _cause(lineage, stale, limits)
    at = [x for x in stale if x.own.relative > limits["smallest"]]
    where = which_layers(names, len(lineage.layers))
    one = len(names) == 1
    largest = max(changes[name] for name in names)
    fed = f" (in front of {some_of([x.name for x in at], 2)})" if 0 < len(at) < len(names) else ""
    text = (
        f"{where} {'has' if one else 'have'} exactly the statistics of "
        f"{file_name(lineage.parent)}, while weights before {'it' if one else 'them'} changed by "
        f"up to {percent(largest)}{fed}: {because}"
    )
    yield Found(
        upper_first(text) + ".",
        layers=names,
        evidence={
            "cause": cause,
            "largest_change": largest,
            "changed_at": [x.name for x in at],
            "changes": {name: changes[name] for name in names},
        },
        severity="warning" if grave else "info",
        remedy=None if grave else "So small a change hardly moves the statistics: nothing to do.",
        command=recalibrate_command(lineage.child) if grave else None,
    )


@rule(
    "BN051",
    "drifted-statistics",
    "warning",
    Lineage,
    means="Everything before these layers is the parent's, weight for weight, and yet their "
    "statistics moved: forwards in train mode went over other data, or something wrote them.",
    computed="`c ≤ weights` (BN050) up to the layer, no tensor there without its counterpart, and "
    "`d > distance`: the estimation shift (BN101) that the child's statistics have where the "
    "parent's are taken for the expected ones, RMS over channels. `num_batches_tracked` tells "
    "how many batches went through, where both files have it.",
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
            "RMS distance in standard deviations of the normalised activation. The noise of a "
            "moving average at momentum .1 makes about this much, below it is information.",
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
    elsewhere = {layer.name for layer in dummy_forwards(lineage)}
    moved = [
        x
        for x in lineage.layers
        if x.name not in elsewhere
        and (x.statistics, x.reset, x.mixture) == ("moved", False, None)
        and lineage.change_before(x) <= limits["weights"]
    ]
    # "not <=": a layer that lost its finite values has moved beyond any distance.
    grave = [x for x in moved if not x.distance.total <= limits["distance"]]
    drifted = grave or moved
    if not drifted:
        return
    names = tuple(x.name for x in drifted)
    worst = max(drifted, key=lambda x: _or_infinite(x.distance.total))
    text = (
        f"the statistics of {which_layers(names, len(lineage.layers))} are off those of "
        f"{file_name(lineage.parent)} by {_distances(drifted)}, while "
        f"{_unchanged(lineage)}{_counted(drifted)}"
    )
    if len(moved) > len(drifted):
        text += f"; {plural(len(moved) - len(drifted), 'other layer')} moved less"
    recalibrated = lineage.network.recalibrated
    if recalibrated:
        text += "; bnaudit's record beside the file says that it was recalibrated"
    yield Found(
        upper_first(text) + ".",
        layers=names,
        evidence={
            "largest_distance": worst.distance.total,
            "distances": {x.name: x.distance.total for x in drifted},
            "passes": {x.name: x.passes for x in drifted},
            "weights_equal": lineage.weights_equal,
            "recalibrated": recalibrated,
        },
        severity="warning" if grave and not recalibrated else "info",
        remedy="It was done on purpose, and verified then: nothing to do."
        if recalibrated
        else None,
    )


def _known(lineage: Lineage, layer: LayerLineage) -> float:
    """The largest known change before a layer: 0 where nothing is known."""
    if layer.largest_upstream is not None:
        return layer.largest_upstream
    change = lineage.change_before(layer)
    return 0.0 if math.isnan(change) else change


def _cause(lineage: Lineage, stale: Sequence[LayerLineage], limits: Limits) -> tuple[str, str]:
    """What the evidence suggests was done, as a word and as a clause."""
    network = lineage.network
    weights = network.weights
    if network.shares is not None:
        shares = " and ".join(f"{share:.2g}" for share in network.shares)
        return "merged", f"they are a mixture of the parents, {shares}: averaged or merged"
    if network.averaged:
        return "averaged", f"{' and '.join(network.averaged)} tells of averaged weights"
    before, after = network.distinct_before, network.distinct_after
    # A coarse grid has zeros too: what is on one is not called pruned.
    if before and after is not None and after < limits["distinct"] * before:
        return "quantised", (
            f"{percent(after)} of the values in a row are distinct, {percent(before)} before: "
            "quantised"
        )
    zeros = (weights.zeros_after - weights.zeros_before) / max(weights.elements, 1)
    if zeros > limits["zeros"]:
        return "pruned", f"{percent(zeros)} of all weights became exactly 0: pruned"
    if all(layer.affine.equal for layer in stale):
        return "changed", (
            "gamma and beta are the parent's too, as when weights are edited, or fine-tuned with "
            "BatchNorm frozen"
        )
    return "changed", "averaged, edited, or fine-tuned with BatchNorm in eval()"


def _unchanged(lineage: Lineage) -> str:
    if lineage.weights_equal:
        return "every weight of the network is the same"
    return "the weights before are the same (a frozen part?)"


def _distances(layers: Sequence[LayerLineage]) -> str:
    totals = [_or_infinite(x.distance.total) for x in layers]
    low, high = figure(min(totals)), figure(max(totals))
    spread = high if low == high else f"{low} to {high}"
    if len(layers) > 1:
        return f"{spread} standard deviations"
    parts = layers[0].distance
    return (
        f"{spread} standard deviations (means {figure(parts.mean_part)}, scales "
        f"{figure(parts.scale_part)})"
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


def _or_infinite(distance: float) -> float:
    return math.inf if math.isnan(distance) else distance
