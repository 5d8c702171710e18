"""Statistics with which no activation can be normalised: BN001 to BN003."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnaudit.findings.phrases import plural, recalibrate_command, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, rule
from bnaudit.results.state import LayerState, State


@rule(
    "BN001",
    "non-finite-statistics",
    "error",
    State,
    means="Some running statistics are NaN or infinite.",
    computed="`m̂` and `v̂` of every channel are tested for `NaN`, `+∞` and `−∞`.",
    matters="Every output of such a channel is NaN, or constant, and so is what follows it. One "
    "overflow during training is enough: the moving average never forgets a NaN, even where the "
    "weights recover, and `momentum = 0` does not protect the buffers.",
    remedy="Find the overflow that caused it (half precision, a learning rate too high, bad "
    "input), then recalibrate in float32.",
    source="Ioffe & Szegedy 2015 (Algorithm 2); pytorch issues 1206, 88474, 115500, 117217",
)
def non_finite_statistics(state: State, limits: Limits) -> Iterator[Found]:
    """NaN or infinity in running_mean or running_var."""
    command = recalibrate_command(state)
    yield from _broken(state, _non_finite, "hold NaN or infinite statistics", command)


@rule(
    "BN002",
    "negative-variance",
    "error",
    State,
    means="Some running variances are negative.",
    computed="`v̂ < 0`, by channel.",
    matters="No data have a negative variance. Where `v̂ + ε < 0` the output is NaN; where ε "
    "hides it the scale `γ/√(v̂ + ε)` is far too large. Weights that were extrapolated, merged "
    "with negative coefficients or overwritten leave such values.",
    remedy="Recalibrate; look for what wrote the statistics other than BatchNorm itself.",
    source="pytorch issue 88474; Ioffe & Szegedy 2015 (Algorithm 2)",
)
def negative_variance(state: State, limits: Limits) -> Iterator[Found]:
    """running_var below zero."""
    yield from _broken(state, _negative, "hold negative variances", recalibrate_command(state))


@rule(
    "BN003",
    "undefined-channels",
    "error",
    State,
    means="Some channels divide by zero: variance and eps are both 0.",
    computed="`v̂ ≥ 0` and `v̂ + ε ≤ 0`, by channel, with the ε of the model where it is known.",
    matters="The scale `γ/√(v̂ + ε)` does not exist, and the first input that differs from the "
    "mean becomes infinite. bnaudit leaves such channels out of averages and counts them.",
    remedy="Give the layer an eps above 0 (PyTorch's default is 1e-5).",
    source="Ioffe & Szegedy 2015 (Algorithm 1: ε is there for this)",
)
def undefined_channels(state: State, limits: Limits) -> Iterator[Found]:
    """running_var + eps is zero."""
    yield from _broken(state, _undefined, "divide by √(0 + eps) = 0", command=None)


def _non_finite(layer: LayerState) -> NDArray[np.bool_]:
    return ~(np.isfinite(layer.running_mean) & np.isfinite(layer.running_var))


def _negative(layer: LayerState) -> NDArray[np.bool_]:
    return np.isfinite(layer.running_var) & (layer.running_var < 0)


def _undefined(layer: LayerState) -> NDArray[np.bool_]:
    return (layer.running_var >= 0) & (layer.running_var + layer.eps <= 0)


def _broken(
    state: State,
    broken: Callable[[LayerState], NDArray[np.bool_]],
    what: str,
    command: str | None,
) -> Iterator[Found]:
    by_layer: list[dict[str, Any]] = []
    for layer in state.layers:
        channels = np.flatnonzero(broken(layer)).tolist()
        if channels:
            by_layer.append({"layer": layer.name, "of": layer.channels, "channels": channels})
    if not by_layer:
        return
    names = tuple(entry["layer"] for entry in by_layer)
    total = sum(len(entry["channels"]) for entry in by_layer)
    has = what.replace("hold", "holds").replace("divide", "divides") if total == 1 else what
    where = which_layers(names, len(state.layers))
    yield Found(
        upper_first(f"{plural(total, 'channel')} in {where} {has}."),
        layers=names,
        evidence={"channels": total, "by_layer": by_layer},
        command=command,
    )
