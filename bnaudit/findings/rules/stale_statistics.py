"""Statistics that did not follow their weights: BN050."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bnaudit.findings.lineage_phrases import file_name, percent
from bnaudit.findings.phrases import (
    plural,
    recalibrate_command,
    some_of,
    upper_first,
    which_layers,
)
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.rules.never_estimated import is_initial
from bnaudit.results.lineage import LayerLineage, Lineage

SMALL = "So small a change hardly moves the statistics: nothing to do."
OVERFLOWED = (
    "Store these weights in float32 or bfloat16, from the parent: no statistics make up for "
    "infinite ones."
)


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
    "values in a row of a weight, as integers have (rows of 32 values and more, among the first "
    "16,384 of each tensor), *quantised*; `n_averaged`, counts that are not integers, a key that "
    "says so, or weights that are a mixture of the parents (it leaves at most .05 of the way to "
    "the nearest), *averaged*; finite weights that became infinite, as float16 has nothing above "
    "65504, *overflowed*.",
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
    largest = max(changes[x.name] for x in stale)
    cause, because = _cause(lineage, stale, largest, limits)
    at = [x for x in stale if x.own.relative > limits["smallest"]]
    where = which_layers(names, len(lineage.layers))
    one = len(names) == 1
    fed = f" (in front of {some_of([x.name for x in at], 2)})" if 0 < len(at) < len(names) else ""
    overflowed = cause == "overflowed"
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
        remedy=OVERFLOWED if overflowed else None if grave else SMALL,
        command=recalibrate_command(lineage.child) if grave and not overflowed else None,
    )


def _known(lineage: Lineage, layer: LayerLineage) -> float:
    """The largest known change before a layer: 0 where nothing is known."""
    if layer.largest_upstream is not None:
        return layer.largest_upstream
    change = lineage.change_before(layer)
    return 0.0 if math.isnan(change) else change


def _cause(
    lineage: Lineage, stale: Sequence[LayerLineage], largest: float, limits: Limits
) -> tuple[str, str]:
    """What the evidence suggests was done, as a word and as a clause; `largest` change of them."""
    network = lineage.network
    weights = network.weights
    if weights.infinite and math.isinf(largest):
        return "overflowed", f"{plural(weights.infinite, 'weight')} became infinite"
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
