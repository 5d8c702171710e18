"""Statistics that data have never, or hardly, entered: BN004 and BN006 to BN008."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from bnaudit.findings.phrases import among, plural, recalibrate_command, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.results.findings import Severity
from bnaudit.results.state import LayerState, State
from bnaudit.stats.moving_average import USUAL_MOMENTA
from bnaudit.stats.moving_average import is_initial as are_initial

SAME = 8 * 2.0**-23
"""Relative spread of channels that went through the same float32 arithmetic."""

ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
"""Relative spacing of the formats other than float32, which has 2⁻²³."""


@rule(
    "BN004",
    "never-updated",
    "error",
    State,
    means="Layers still hold the statistics they were made with: mean 0 and variance 1 in every "
    "channel.",
    computed="`m̂ = 0` and `v̂ = 1` exactly, in all channels of a layer.",
    matters="At inference such a layer does not normalise at all: `(x − 0)/√(1 + ε)`. The model "
    "was never trained in train mode, the buffers were not saved or not loaded, or the layer was "
    "added afterwards. A part that inference does not call (an auxiliary head) may stay like "
    "this.",
    remedy="Recalibrate, or load the checkpoint that has the buffers; see that training saves "
    "state_dict(), not only parameters().",
    source="bts issue 90, DPC issue 10; Ioffe & Szegedy 2015 (Algorithm 2)",
    unless=("BN053",),
)
def never_updated(state: State, limits: Limits) -> Iterator[Found]:
    """The initial statistics, untouched."""
    layers = [layer for layer in state.layers if is_initial(layer)]
    if not layers:
        return
    names = tuple(layer.name for layer in layers)
    counts = [layer.num_batches_tracked or 0.0 for layer in layers]
    counted = [count for count in counts if count > 0 and math.isfinite(count)]
    still = "still holds" if len(names) == 1 else "still hold"
    where = which_layers(names, len(state.layers))
    text = f"{where} {still} mean 0 and variance 1 in every channel"
    if counted:
        text += f", although up to {max(counted):,.0f} batches were counted: momentum 0, or a reset"
    yield Found(
        upper_first(text) + ".",
        layers=names,
        evidence={"layers": len(names), "of": len(state.layers), "counted": len(counted)},
        command=recalibrate_command(state),
    )


LOST = {
    "running_mean": "running_var",
    "running_var": "running_mean",
    "num_batches_tracked": "running_mean and no running_var",
}
"""What a layer lacks that has this alone."""


@rule(
    "BN006",
    "statistics-missing",
    "warning",
    State,
    means="BatchNorm layers have no running statistics, or only a part of them.",
    computed="In a file, by name: `weight` and `bias` of one length, of a layer whose name says "
    "BatchNorm (`bn1`, `conv_bn`, `batch_norm`), without `running_mean` and `running_var`. In a "
    "model, BatchNorm layers without these buffers. An error where `running_mean`, `running_var` "
    "or `num_batches_tracked` is there alone: then the layer had statistics, and they were lost.",
    matters="Loaded with `strict=False`, such layers start from mean 0 and variance 1 at "
    "inference. Built with `track_running_stats=False`, they normalise by the batch, and every "
    "answer depends on the other samples of the batch.",
    remedy="Save and load the buffers too (state_dict(), not named_parameters()); where the "
    "layers are meant to have none, answers depend on the batch: say so, or use a batch-free "
    "norm.",
    source="bts issue 90, DPC issue 10; Wu 2021 (arXiv:2105.07576), section 4",
    unless=("BN055",),
)
def statistics_missing(state: State, limits: Limits) -> Iterator[Found]:
    """Statistics that were lost, and weights without any."""
    everywhere = {
        *state.without_statistics,
        *(layer.name for layer in state.incomplete),
        *(layer.name for layer in state.layers),
    }
    total = len(everywhere)
    for only, lost in LOST.items():
        partly = tuple(layer.name for layer in state.incomplete if layer.only == only)
        if partly:
            verb = "has" if len(partly) == 1 else "have"
            yield Found(
                upper_first(
                    f"{which_layers(partly, total)} {verb} {only} and no {lost}: statistics were "
                    "lost where the file was written."
                ),
                layers=partly,
                evidence={"layers": len(partly), "of": total, "stored": only},
                severity="error",
                remedy="Write the file again from the whole state_dict(), or take the statistics "
                "from an older checkpoint of the same weights; else load it with --allow-mismatch "
                "and recalibrate.",
            )
    names = state.without_statistics
    if names:
        verb = "has" if len(names) == 1 else "have"
        yield Found(
            upper_first(f"{which_layers(names, total)} {verb} no running statistics."),
            layers=names,
            evidence={"layers": len(names), "of": total},
        )


@rule(
    "BN007",
    "not-warmed-up",
    "warning",
    State,
    means="The moving averages have seen so few batches that their initial values, 0 and 1, still "
    "weigh.",
    computed="`w = (1 − momentum)ⁿ`, with n the stored `num_batches_tracked`; only where the "
    "model tells the momentum. `v̂ = w·1 + (1 − w)·(what the batches gave)`.",
    matters="A mean that is pulled towards 0 and a variance that is pulled towards 1 are errors "
    "of the normalised activation in every channel, which add up from layer to layer. Short runs "
    "and small momenta (a Keras momentum of .99 is .01 here) do this.",
    remedy="Recalibrate, or train longer or with a larger momentum.",
    source="keras issue 3949, chemprop issue 607; Wu 2021 (arXiv:2105.07576), section 3",
    thresholds=(
        Threshold(
            "initial_weight",
            0.01,
            "Weight of the initial values, 0 to 1. Variances of .01 to 1 are usual, so that a "
            "weight of .01 can double one. 44 batches bring it below at momentum 0.1, 459 at "
            "0.01.",
        ),
    ),
    unless=("BN004", "BN008"),
)
def not_warmed_up(state: State, limits: Limits) -> Iterator[Found]:
    """The initial values still weigh."""
    weights = {}
    for layer in state.layers:
        count, momentum = layer.num_batches_tracked, layer.momentum
        if count and count > 0 and math.isfinite(count) and momentum and 0 < momentum < 1:
            weight = (1 - momentum) ** count
            if weight > limits["initial_weight"]:
                weights[layer.name] = weight
    if not weights:
        return
    worst = max(weights, key=lambda name: weights[name])
    layer = state[worst]
    text = (
        f"the initial values still weigh up to {weights[worst]:.2g} in "
        f"{which_layers(tuple(weights), len(state.layers))}: {layer.num_batches_tracked:,.0f} "
        f"batches at momentum {layer.momentum:g}"
    )
    yield Found(
        upper_first(text) + ".",
        layers=tuple(weights),
        evidence={"initial_weight": weights},
        command=recalibrate_command(state),
    )


@dataclass(frozen=True)
class Constant:
    """A variance that is the same in all channels: (1 − momentum)^forwards, or neither is known."""

    layer: str
    variance: float
    momentum: float | None
    forwards: int | None
    largest_mean: float


@rule(
    "BN008",
    "dummy-forwards",
    "error",
    State,
    means="Every channel of a layer has the same variance, as forwards in train mode on constant "
    "inputs leave it.",
    computed="The variances of a layer with two channels or more agree (to `8·2⁻²³` in float32, to "
    "the last bit in other types), are not 1 and are above ε. A batch of zeros has variance 0, so "
    "that k of them leave `v̂ = (1 − momentum)ᵏ`: 0.9, 0.81, … k is sought with the momentum of "
    "the model, then with 0.1, 0.03, 0.01 and 0.001, and fits where the power is off by at most "
    "k + 1 roundings (2⁻²³ in float32, 2⁻¹⁰ in float16, 2⁻⁷ in bfloat16). Where no k fits it is a "
    "warning. A bias in front of the layer may have moved the means.",
    matters="A forward that only probes shapes, warms up a device or traces a graph, made before "
    "`eval()`, counts as training for BatchNorm. Layers that training then skips keep these "
    "values, and no two channels of real data have one variance.",
    remedy="Call eval() before dummy forwards (or restore the buffers after them), and "
    "recalibrate.",
    source="ultralytics issue 17469, pull requests 18149, 14829",
    thresholds=(
        Threshold(
            "most_forwards",
            200,
            "The largest k, in forwards, that is sought: with many candidates some power of 0.999 "
            "is near any number.",
        ),
    ),
)
def dummy_forwards(state: State, limits: Limits) -> Iterator[Found]:
    """One variance in all channels: (1 − momentum)^k, or the like."""
    constants = [_constant(layer, limits["most_forwards"]) for layer in state.layers]
    found = [constant for constant in constants if constant is not None]
    powers = [constant for constant in found if constant.forwards is not None]
    others = [constant for constant in found if constant.forwards is None]
    if powers:
        first = powers[0]
        text = (
            f"{_agree(powers, state)}, {first.variance:.6g} = {1 - (first.momentum or 0):g}^"
            f"{first.forwards}{among(first.layer, powers)}: "
            f"{plural(first.forwards or 0, 'forward')} in train mode on constant inputs"
        )
        yield _found_constant(text, powers, state, "error")
    if others:
        text = f"{_agree(others, state)}, {others[0].variance:.6g}{among(others[0].layer, others)}"
        yield _found_constant(f"{text}, which no data leave", others, state, "warning")


def _agree(constants: list[Constant], state: State) -> str:
    names = tuple(constant.layer for constant in constants)
    has = "has" if len(names) == 1 else "have"
    return f"{which_layers(names, len(state.layers))} {has} one variance in all channels"


def _found_constant(
    text: str, constants: list[Constant], state: State, severity: Severity
) -> Found:
    return Found(
        upper_first(text) + ".",
        layers=tuple(constant.layer for constant in constants),
        evidence={"by_layer": [asdict(constant) for constant in constants]},
        severity=severity,
        command=recalibrate_command(state),
    )


def is_initial(layer: LayerState) -> bool:
    """Whether mean is 0 and variance 1 in every channel, exactly."""
    return are_initial(layer.running_mean, layer.running_var)


def _constant(layer: LayerState, most_forwards: float) -> Constant | None:
    variance = layer.running_var
    if layer.channels < 2 or not np.all(np.isfinite([layer.running_mean, variance])):
        return None
    low, high = float(variance.min()), float(variance.max())
    spread = SAME if layer.dtype == "float32" else 0.0
    if not layer.eps < low <= high <= low * (1 + spread) or low == high == 1:
        return None
    own = () if layer.momentum is None else (layer.momentum,)
    momenta = dict.fromkeys((*own, *USUAL_MOMENTA))  # YOLO sets its own after the dummy forward
    largest = float(np.abs(layer.running_mean).max())
    for momentum in momenta:
        forwards = _power(low, momentum, ROUNDING.get(layer.dtype, 2.0**-23), most_forwards)
        if forwards is not None:
            return Constant(layer.name, low, momentum, forwards, largest)
    return Constant(layer.name, low, None, None, largest)


def _power(variance: float, momentum: float, rounding: float, most: float) -> int | None:
    """k with variance = (1 − momentum)^k up to k roundings; None where there is none."""
    if not 0 < momentum < 1 or not 0 < variance < 1:
        return None
    forwards = round(math.log(variance) / math.log1p(-momentum))
    if not 1 <= forwards <= most:
        return None
    off = abs(variance / (1 - momentum) ** forwards - 1)
    return forwards if off <= (forwards + 1) * rounding else None
