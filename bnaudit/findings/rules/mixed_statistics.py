"""Statistics that are partly the parent's and partly something else: BN052."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bnaudit.findings.lineage_phrases import (
    SAME_WEIGHTS,
    distance,
    dummy_forwards,
    file_name,
    percent,
)
from bnaudit.findings.phrases import number, plural, recalibrate_command, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.results.lineage import LayerLineage, Lineage, MixedWith
from bnaudit.stats.moving_average import USUAL_MOMENTUM

SAME_SHARES = 0.02
"""How near the shares of the parents in weights and in statistics are, where they are the same."""


@rule(
    "BN052",
    "mixed-statistics",
    "warning",
    Lineage,
    means="The statistics are a mixture: partly the parent's, partly the initial values, zeros, "
    "another parent's, or what too few batches gave.",
    computed="Least squares of `(m̂, v̂) ≈ (1 − a)·parent + a·other` over all channels of a layer, "
    "other = (0, 1), the initial values; (0, 0), batches of zeros, where `1 − a = 0.9ᵏ` (or "
    ".97ᵏ, .99ᵏ, .999ᵏ; to .001, relatively; the counters have to bear out k, where there are "
    "any, and then the variances alone will do; without them k is at most 30, and .999ᵏ, whose "
    "powers lie too close, is not looked for); or, with --against given more than once, the "
    "shares of all parents. It counts as a mixture where what the fit leaves is at most .05 of "
    "the distance to the parent, the distance is above .001 standard deviations, and no share "
    "above .98 makes it one of the parts. Pruned channels (|γ| below .01 of the layer's largest) "
    "are left out, and at least 4 have to be left (with P parents, 2P). Shares of statistics and "
    "of weights are called the same where they are within .02. By the counters: the parent still "
    "has the weight `(1 − momentum)ⁿ > parent_weight` after n more batches although the weights "
    "changed by more than `change`; momentum .1 unless the file tells it.",
    matters="Such statistics belong to no network. Those of an average of networks are not the "
    "average of their statistics: its activations vary less than either's, the more the deeper "
    "(variance collapse: Jordan et al. 2022, REPAIR). Forwards on zeros (shape probing, warm-up) "
    "in train mode scale variances down by .9 each.",
    remedy="Recalibrate.",
    source="Jordan et al. 2022 (arXiv:2211.08403); git-re-basin-pytorch issue 3; ultralytics "
    "issue 17469, pull requests 18149, 14829; Wu 2021 (arXiv:2105.07576), section 3",
    thresholds=(
        Threshold(
            "parent_weight",
            0.05,
            "Weight of the parent's statistics in the moving average, 0 to 1: 28 batches bring it "
            "to .05 at momentum .1.",
        ),
        Threshold(
            "change",
            0.1,
            "Relative change of weights, without unit. A moving average always lags behind by "
            "some 1/momentum steps; only where the weights moved far in these is it a fault.",
        ),
        Threshold(
            "weights",
            SAME_WEIGHTS,
            "Relative change of weights, without unit, up to which they count as the same: "
            "forwards on zeros are told from training by it.",
            same_as="BN051",
        ),
    ),
)
def mixed_statistics(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    """One finding for each thing that the parent's statistics are mixed with."""
    yield from _with_zeros(lineage, limits)
    initial = _mixed_with(lineage, "initial")
    if initial:
        yield _with_initial(lineage, initial)
    parents = _mixed_with(lineage, "parents")
    if parents:
        yield _with_parents(lineage, parents)
    yield from _by_counters(lineage, limits)


def _mixed_with(lineage: Lineage, kind: MixedWith) -> list[LayerLineage]:
    return [
        layer
        for layer in lineage.layers
        if layer.mixture is not None and layer.mixture.kind == kind and not layer.reset
    ]


def _with_zeros(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    layers = dummy_forwards(lineage, limits["weights"])
    exact = _mixed_with(lineage, "zero-batches")
    if not exact:
        return
    forwards, momentum = _forwards(exact[0])
    power = f"{1 - momentum:g}"
    if forwards > 1:
        power = f"{number(_share(exact[0], 0))} = {power}^{forwards}"
    names = tuple(layer.name for layer in layers)
    of_exact = which_layers([layer.name for layer in exact], len(lineage.layers))
    text = (
        f"the variances of {of_exact} are {power} times those of {file_name(lineage.parent)}: "
        f"{plural(forwards, 'forward')} on zeros in train mode"
    )
    if len(layers) > len(exact):
        rest = len(layers) - len(exact)
        text += f"; {plural(rest, 'other layer')} moved with them, by up to {_largest(layers)}"
    yield Found(
        upper_first(text) + ".",
        layers=names,
        evidence=_evidence("zero-batches", exact) | {"forwards": forwards},
        remedy="Take the statistics of the parent (bnaudit recalibrate where there is none), and "
        "call eval() before forwards that are not training.",
        command=recalibrate_command(lineage.child),
    )


def _forwards(layer: LayerLineage) -> tuple[int, float]:
    """How many batches of zeros, and the momentum that they tell."""
    fit = layer.mixture
    if fit is None or fit.batches is None or fit.momentum is None:
        raise ValueError(f"{layer.name} is not mixed with zeros")
    return fit.batches, fit.momentum


def _with_initial(lineage: Lineage, layers: Sequence[LayerLineage]) -> Found:
    names = tuple(layer.name for layer in layers)
    shares = [_share(layer, 1) for layer in layers]
    return Found(
        f"The statistics of {which_layers(names, len(lineage.layers))} are those of "
        f"{file_name(lineage.parent)} with {_range(shares)} of the initial values, mean 0 and "
        "variance 1, mixed in.",
        layers=names,
        evidence=_evidence("initial", layers),
        command=recalibrate_command(lineage.child),
    )


def _with_parents(lineage: Lineage, layers: Sequence[LayerLineage]) -> Found:
    names = tuple(layer.name for layer in layers)
    of_parents = ", ".join(
        f"{_range([_share(layer, i) for layer in layers])} {file_name(parent)}"
        for i, parent in enumerate(lineage.parents)
    )
    where = which_layers(names, len(lineage.layers))
    text = f"the statistics of {where} are mixtures of the parents': {of_parents}"
    weights = lineage.network.shares
    if weights is not None and all(_same_shares(layer, weights) for layer in layers):
        text += (
            "; the weights are mixed likewise, and the activations of an average vary less than "
            "the average says"
        )
    elif weights is not None:
        shares = " and ".join(f"{share:.2g}" for share in weights)
        text += f"; the weights are mixed otherwise, {shares}"
    elif lineage.weights_equal:
        text += f"; the weights are those of {file_name(lineage.parent)} alone"
    return Found(
        upper_first(text) + ".",
        layers=names,
        evidence=_evidence("parents", layers)
        | {"weights": None if weights is None else list(weights)},
        command=recalibrate_command(lineage.child),
    )


def _by_counters(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    weights = {}
    for layer in lineage.layers:
        batches = layer.passes
        if layer.statistics != "moved" or layer.reset or layer.mixture is not None:
            continue
        if batches is None or batches <= 0 or not _far(lineage, layer, limits):
            continue
        momentum = lineage.child[layer.name].momentum
        weight = (1 - (USUAL_MOMENTUM if momentum is None else momentum)) ** batches
        if weight > limits["parent_weight"]:
            weights[layer.name] = weight
    if not weights:
        return
    layers = [layer for layer in lineage.layers if layer.name in weights]
    fewest = min(layers, key=lambda layer: layer.passes or 0.0)
    known = lineage.child[fewest.name].momentum is not None
    text = (
        f"only {plural(round(fewest.passes or 0), 'batch', 'batches')} went through "
        f"{which_layers(tuple(weights), len(lineage.layers))} since "
        f"{file_name(lineage.parent)}, whose statistics still weigh up to "
        f"{number(max(weights.values()))}{'' if known else ' at momentum 0.1, which is assumed'}, "
        f"while the weights changed by up to {percent(_largest_change(lineage, layers))}"
    )
    yield Found(
        upper_first(text) + ".",
        layers=tuple(weights),
        evidence={"with": "few-batches", "parent_weight": weights, "momentum_known": known},
        command=recalibrate_command(lineage.child),
    )


def _far(lineage: Lineage, layer: LayerLineage, limits: Limits) -> bool:
    return lineage.change_before(layer) > limits["change"]


def _largest_change(lineage: Lineage, layers: Sequence[LayerLineage]) -> float:
    return max(lineage.change_before(layer) for layer in layers)


def _largest(layers: Sequence[LayerLineage]) -> str:
    return distance(max(x.output_distance.total for x in layers)) + " standard deviations"


def _share(layer: LayerLineage, of: int) -> float:
    return math.nan if layer.mixture is None else layer.mixture.shares[of]


def _same_shares(layer: LayerLineage, weights: Sequence[float]) -> bool:
    return all(abs(_share(layer, i) - share) <= SAME_SHARES for i, share in enumerate(weights))


def _range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def _evidence(kind: MixedWith, layers: Sequence[LayerLineage]) -> dict[str, object]:
    fits = {layer.name: layer.mixture for layer in layers}
    return {
        "with": kind,
        "shares": {name: list(fit.shares) for name, fit in fits.items() if fit is not None},
        "residual": {name: fit.residual for name, fit in fits.items() if fit is not None},
    }
