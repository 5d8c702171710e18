"""Channels and layers that contribute next to nothing: BN012 to BN014."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bnaudit.findings.phrases import plural, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.rules.never_estimated import is_initial
from bnaudit.results.state import LayerState, State

LEAST_REFERENCE = 0.1
"""γ starts at 1; a network whose median has fallen below a tenth of that is no reference."""


@rule(
    "BN012",
    "dead-channels",
    "info",
    State,
    means="In some channels the variance is below ε: the input hardly varies, and ε outweighs it.",
    computed="`0 ≤ v̂ < k·ε`, by channel. No checkpoint stores ε: 1e-5 is assumed where the model "
    "does not give it (`inspect --eps`).",
    matters="At `v̂ = ε` the normalised activation has a standard deviation of 0.71 in place of "
    "1, below it tends to a constant. Harmless as long as inputs stay as they were; other data, a "
    "smaller ε or half precision can magnify such a channel by up to `1/√ε` (316 at 1e-5).",
    remedy="Prune the channels, or leave them; a larger eps makes them safer. Weights in front "
    "that weight decay has driven to 0 are the usual reason.",
    source="torchvision issue 1947, detectron2 issue 3160",
    thresholds=(
        Threshold(
            "multiple_of_eps",
            1.0,
            "k, in multiples of ε. At k = 1 the output has lost 29% of its standard deviation, at "
            "k = 10, 5%; a network with eps 1e-3 has many healthy channels below 10.",
        ),
    ),
)
def dead_channels(state: State, limits: Limits) -> Iterator[Found]:
    """Variance below a multiple of eps."""
    multiple = limits["multiple_of_eps"]
    by_layer: list[dict[str, Any]] = []
    for layer in state.layers:
        dead = (layer.running_var >= 0) & (layer.running_var < multiple * layer.eps)
        if dead.any():
            eps_used = {"eps": layer.eps, "assumed": not layer.eps_known}
            by_layer.append(_entry(layer, dead) | eps_used)
    if not by_layer:
        return
    names, total, of = _totals(state, by_layer)
    which = which_layers(names, len(state.layers))
    known = {entry["eps"] for entry in by_layer if not entry["assumed"]}
    assumed = {entry["eps"] for entry in by_layer if entry["assumed"]}
    eps = " or ".join(f"{value:g}" for value in sorted(known | assumed))
    times = "" if multiple == 1 else f"{multiple:g} times "
    note = f"eps = {eps}" + (", assumed" if assumed else "")
    smallest = min(entry["smallest_variance"] for entry in by_layer)
    whole = sum(len(entry["channels"]) == entry["of"] for entry in by_layer)
    yield Found(
        f"{plural(total, 'channel')} of {of:,} {'has' if total == 1 else 'have'} a variance below "
        f"{times}eps ({note}), down to {smallest:.2g}: {which}"
        + (f"; {plural(whole, 'layer')} in every channel." if whole else "."),
        layers=names,
        evidence={"channels": total, "of": of, "by_layer": by_layer},
    )


@rule(
    "BN013",
    "gamma-near-zero",
    "info",
    State,
    means="Some channels are multiplied by next to nothing: |γ| is about 0.",
    computed="`|γ| < r·g`, by channel, with g the median |γ| of the network, at least 0.1.",
    matters="Such a channel passes on the constant β: it can be pruned without loss (Liu et al. "
    "2017, network slimming). Its statistics do not matter either, which is why verdicts use the "
    "output shift, weighted by γ².",
    remedy="Nothing; prune the channels if speed matters.",
    source="Liu et al. 2017 (arXiv:1708.06519); Summers 2020 (arXiv:1906.03548)",
    thresholds=(
        Threshold(
            "relative",
            1e-3,
            "r, as a share of the network's median |γ|. In trained ResNets |γ| has a gap there: "
            "2.5% of the channels of two CIFAR ResNets lie below 1e-3, at most 0.4% more below "
            "1e-2.",
        ),
    ),
    unless=("BN014",),
)
def gamma_near_zero(state: State, limits: Limits) -> Iterator[Found]:
    """Channels whose gamma is about zero."""
    bound = limits["relative"] * _reference(state)
    by_layer = []
    for layer in state.layers:
        if layer.gamma is not None and np.any(near := np.abs(layer.gamma) < bound):
            by_layer.append(_entry(layer, near))
    if by_layer:
        names, total, of = _totals(state, by_layer)
        yield Found(
            f"{plural(total, 'channel')} of {of:,} {'has' if total == 1 else 'have'} |gamma| below "
            f"{bound:.2g}: {which_layers(names, len(state.layers))}.",
            layers=names,
            evidence={"channels": total, "of": of, "below": bound, "by_layer": by_layer},
        )


@rule(
    "BN014",
    "gamma-collapse",
    "warning",
    State,
    means="In most channels of a layer γ has collapsed: the layer passes on little but the "
    "constant β.",
    computed="A layer in which at least `share` of the channels have `|γ| < r·g`, with g the "
    "median |γ| of the network, at least 0.1 (γ starts at 1). Layers that were never updated are "
    "left out; a branch that starts at γ = 0 looks the same until it has been trained for a "
    "while.",
    matters="Weight decay on γ pulls each channel towards 0 that the loss does not hold. A "
    "BatchNorm further down undoes the size of γ, so that nothing but a direct path to the output "
    "holds it. Summers 2020 therefore examine decay of γ and β apart from that of other weights. "
    "Once γ is gone the layers in front get no gradient, and the next BatchNorm divides by √ε. In "
    "a residual branch the block has become the identity: harmless, but without use.",
    remedy="Train with weight decay on γ and β only where they reach the output directly, or on "
    "none of them; prune the blocks that have become the identity.",
    source="Summers 2020 (arXiv:1906.03548), on weight decay of γ and β",
    thresholds=(
        Threshold(
            "relative",
            0.01,
            "r, as a share of the network's median |γ|. In two CIFAR ResNets and the sample "
            "models no layer has a median below 0.40 times the network's.",
        ),
        Threshold(
            "share",
            0.5,
            "Share of a layer's channels, 0 to 1. Trained ResNets have a few collapsed channels "
            "in many layers (BN013); half of them is a layer that has failed.",
        ),
    ),
)
def gamma_collapse(state: State, limits: Limits) -> Iterator[Found]:
    """Layers most of whose gamma are about zero."""
    bound = limits["relative"] * _reference(state)
    by_layer = []
    for layer in state.layers:
        if layer.gamma is None or not layer.channels or is_initial(layer):
            continue
        collapsed = np.abs(layer.gamma) < bound
        if collapsed.mean() >= limits["share"]:
            by_layer.append(_entry(layer, collapsed))
    if by_layer:
        names = tuple(entry["layer"] for entry in by_layer)
        low = min(len(entry["channels"]) / entry["of"] for entry in by_layer)
        where = which_layers(names, len(state.layers))
        verb = "has" if len(names) == 1 else "have"
        least = "all" if low == 1 else f"{'' if len(names) == 1 else 'at least '}{low:.0%} of"
        yield Found(
            upper_first(f"{where} {verb} |gamma| below {bound:.2g} in {least} channels."),
            layers=names,
            evidence={"below": bound, "by_layer": by_layer},
        )


def _reference(state: State) -> float:
    """The median |γ| of the network, at least `LEAST_REFERENCE`."""
    sizes = [np.abs(layer.gamma) for layer in state.layers if layer.gamma is not None]
    finite = [size[np.isfinite(size)] for size in sizes]
    all_sizes = np.concatenate(finite) if finite else np.ones(1)
    return max(float(np.median(all_sizes)) if all_sizes.size else 1.0, LEAST_REFERENCE)


def _entry(layer: LayerState, channels: Any) -> dict[str, Any]:
    variances = layer.running_var[channels]
    finite = variances[np.isfinite(variances)]
    return {
        "layer": layer.name,
        "of": layer.channels,
        "channels": np.flatnonzero(channels).tolist(),
        "smallest_variance": float(finite.min()) if finite.size else None,
    }


def _totals(state: State, by_layer: list[dict[str, Any]]) -> tuple[tuple[str, ...], int, int]:
    """The layers, how many channels they have between them that count, and the network's."""
    names = tuple(entry["layer"] for entry in by_layer)
    total = sum(len(entry["channels"]) for entry in by_layer)
    return names, total, sum(layer.channels for layer in state.layers)
