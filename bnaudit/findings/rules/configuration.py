"""Settings of the layers that no checkpoint stores, and what they do: BN018 to BN020."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bnaudit.findings.phrases import among, recalibrate_command, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.results.state import LayerState, State

PYTORCH_EPS, TENSORFLOW_EPS = 1e-5, 1e-3


@rule(
    "BN018",
    "eps-sensitive",
    "info",
    State,
    means="The outputs of some layers would change noticeably between eps 1e-5 and 1e-3, the "
    "usual error of porting.",
    computed="`√(Σγ²v̂(1/s₅ − 1/s₃)² / Σγ²v̂/s₅²)` by layer, with `s₅ = √(v̂ + 1e-5)` and `s₃ = "
    "√(v̂ + 1e-3)`: the RMS change of the layer's centred output, relative to its RMS. With γ² as "
    "the weights, a pruned channel does not count.",
    matters="No checkpoint stores eps: PyTorch's default is 1e-5, that of Keras and TensorFlow "
    "1e-3. With the wrong one the network runs and is silently worse, by 19 points of mAP in a "
    "port of YOLO; every such layer makes its output too small or too large.",
    remedy="Make sure that the model has the eps it was trained with; bnaudit measure shows the "
    "one in force.",
    source="LibreYOLO issue 700, tensorrtx issue 1444, transformers issue 18597, ao issue 2980",
    thresholds=(
        Threshold(
            "change",
            0.05,
            "Relative RMS change of a layer's output. Two CIFAR ResNets have at most 0.023; 0.05 "
            "in each of 20 layers would leave (1 − 0.05)²⁰ = 36% of the activations.",
        ),
    ),
)
def eps_sensitive(state: State, limits: Limits) -> Iterator[Found]:
    """Layers whose output depends on eps."""
    changes = {layer.name: eps_change(layer) for layer in state.layers}
    above = {name: change for name, change in changes.items() if change > limits["change"]}
    if above:
        worst = max(above, key=lambda name: above[name])
        used = {layer.eps for layer in state.layers if layer.name in above and layer.eps_known}
        known = f"; the model has {', '.join(f'{eps:g}' for eps in sorted(used))}" if used else ""
        verb = "depends" if len(above) == 1 else "depend"
        yield Found(
            upper_first(
                f"the output of {which_layers(tuple(above), len(state.layers))} {verb} on eps: it "
                f"changes by up to {above[worst]:.0%} between 1e-5 and 1e-3"
                f"{among(worst, above)}{known}."
            ),
            layers=tuple(above),
            evidence={"change": changes},
        )


@rule(
    "BN019",
    "momentum-above-half",
    "warning",
    State,
    means="The momentum is above one half, as if it were meant in the other convention.",
    computed="`momentum > limit`, where the model tells it. PyTorch: `v̂ ← (1 − momentum)·v̂ + "
    "momentum·v`; TensorFlow and Keras: `v̂ ← momentum·v̂ + (1 − momentum)·v`.",
    matters="TensorFlow's 0.99 is PyTorch's 0.01. Taken over as it is, the statistics are in "
    "effect those of the last batch: fully noisy, and a different model after every step.",
    remedy="Set the momentum to 1 minus its value, and recalibrate.",
    source="transformers issue 19454, EfficientNet-PyTorch issue 3",
    thresholds=(
        Threshold(
            "momentum",
            0.5,
            "Weight of the newest batch, 0 to 1. Above one half it outweighs all earlier ones "
            "together; values in use are 0.001 to 0.1.",
        ),
    ),
)
def momentum_above_half(state: State, limits: Limits) -> Iterator[Found]:
    """The other convention."""
    momenta = {
        layer.name: layer.momentum
        for layer in state.layers
        if layer.momentum is not None and layer.momentum > limits["momentum"]
    }
    if momenta:
        largest = max(momenta.values())
        verb = "has" if len(momenta) == 1 else "have"
        yield Found(
            upper_first(
                f"{which_layers(tuple(momenta), len(state.layers))} {verb} a momentum of up to "
                f"{largest:g}: each batch replaces {largest:.0%} of the statistics."
            ),
            layers=tuple(momenta),
            evidence={"momentum": momenta},
            command=recalibrate_command(state),
        )


@rule(
    "BN020",
    "tracking-off",
    "warning",
    State,
    means="Layers have `track_running_stats=False`, and running statistics all the same.",
    computed="The flag of the module, where the model tells it, against its buffers.",
    matters="The flag is often meant as a freeze, and is none. In train mode the layer normalises "
    "by the batch as before, and no longer updates the statistics; in eval mode it goes on using "
    "them (torch looks at the buffers, not at the flag), so that they age while the weights move. "
    "Set when the layer is built, the flag leaves it without buffers (BN006).",
    remedy="To freeze a layer, keep it in eval() while training, or use FrozenBatchNorm2d; "
    "otherwise set the flag back to True, and recalibrate.",
    source="pytorch issues 20967, 44415, Lightning issue 14085; Wu 2021 (arXiv:2105.07576)",
)
def tracking_off(state: State, limits: Limits) -> Iterator[Found]:
    """The flag says no, the buffers are there."""
    names = tuple(layer.name for layer in state.layers if layer.tracks is False)
    if names:
        verb = "has" if len(names) == 1 else "have"
        yield Found(
            upper_first(
                f"{which_layers(names, len(state.layers))} {verb} track_running_stats=False beside "
                "running statistics: training no longer updates them, inference uses them."
            ),
            layers=names,
            evidence={"layers": len(names), "of": len(state.layers)},
            command=recalibrate_command(state),
        )


def eps_change(layer: LayerState) -> float:
    """Relative RMS change of the layer's output between eps 1e-5 and 1e-3; 0 where undefined."""
    gamma = np.ones(layer.channels) if layer.gamma is None else layer.gamma
    usable = np.isfinite(layer.running_var) & (layer.running_var >= 0) & np.isfinite(gamma)
    weight, variance = gamma[usable] ** 2, layer.running_var[usable]
    small = np.sqrt(variance / (variance + PYTORCH_EPS))
    large = np.sqrt(variance / (variance + TENSORFLOW_EPS))
    power = float(np.sum(weight * small**2))
    return math.sqrt(float(np.sum(weight * (small - large) ** 2)) / power) if power > 0 else 0.0
