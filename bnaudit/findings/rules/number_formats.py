"""What folding and half precision make of the statistics: BN015 to BN017."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from bnaudit.findings.phrases import among, plural, recalibrate_command, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.results.state import Floats, LayerState, State

FLOAT16_MAX = 65504.0

UNIT_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of a number that is rounded to the format."""

BITS = {"float16": 11, "bfloat16": 8}
"""Bits of the significand."""


@rule(
    "BN015",
    "exploding-scale",
    "warning",
    State,
    means="Some channels are multiplied by a very large factor at inference.",
    computed="`|γ|/√(v̂ + ε) > limit`, by channel: what folding multiplies the weights in front by.",
    matters="A change of the input by 1 moves the output by this factor: noise, rounding and "
    "shifted data are magnified. Folded weights of such a channel set the range of a whole "
    "tensor, which costs the others their precision under quantisation, and can overflow float16.",
    remedy="Raise eps, or prune the channels, before folding; quantise by channel; look at why "
    "the variance is so small (BN012).",
    source="torchvision issue 1947, detectron2 issue 3160, NNCF issue 41",
    thresholds=(
        Threshold(
            "scale",
            100.0,
            "Factor from input to output, per unit of input. Trained networks looked at stay "
            "below 7; at eps 1e-5 a channel with γ = 1 and no variance has 316.",
        ),
    ),
)
def exploding_scale(state: State, limits: Limits) -> Iterator[Found]:
    """Channels whose folded scale is beyond the limit."""
    by_layer: list[dict[str, Any]] = []
    for layer in state.layers:
        with np.errstate(invalid="ignore"):  # ∞/∞
            size = _finite(np.abs(layer.scale))
        large = size > limits["scale"]
        if large.any():
            channels = np.flatnonzero(large).tolist()
            entry = {"layer": layer.name, "channels": channels, "largest": float(size.max())}
            by_layer.append(entry | {"eps": layer.eps, "eps_assumed": not layer.eps_known})
    if by_layer:
        names = tuple(entry["layer"] for entry in by_layer)
        total = sum(len(entry["channels"]) for entry in by_layer)
        worst = max(by_layer, key=lambda entry: float(entry["largest"]))
        verb = "is" if total == 1 else "are"
        yield Found(
            f"{plural(total, 'channel')} in {which_layers(names, len(state.layers))} {verb} "
            f"multiplied by more than {limits['scale']:g} at inference, up to "
            f"{worst['largest']:.4g}{among(worst['layer'], names)}.",
            layers=names,
            evidence={"channels": total, "by_layer": by_layer},
        )


@rule(
    "BN016",
    "outside-float16",
    "warning",
    State,
    means="Statistics, or what folding makes of them, do not fit into float16.",
    computed="`|m̂|`, `v̂`, `|γ|/√(v̂ + ε)` or `|β − m̂γ/√(v̂ + ε)|` above 65504, float16's "
    "largest number; or `|√((v̂ + ε)/(v̂₁₆ + ε)) − 1| > tolerance`, with v̂₁₆ the variance "
    "rounded to float16, where small ones become 0.",
    matters="Exported or converted to float16, an infinite variance makes a channel constant, an "
    "infinite mean or scale makes NaN, and a variance that underflows makes the scale jump.",
    remedy="Keep BatchNorm, or its folded weights, in float32 or bfloat16; or raise eps.",
    source="TensorRT issue 1450, fairscale issue 442",
    thresholds=(
        Threshold(
            "tolerance",
            0.01,
            "Relative change of the scale by rounding the variance. Rounding within the range of "
            "float16 changes it by at most 2.4e-4; at eps 1e-5 underflow changes it by 0.2%, "
            "which is harmless.",
        ),
    ),
)
def outside_float16(state: State, limits: Limits) -> Iterator[Found]:
    """Statistics or folded scale and offset outside of float16's range."""
    by_layer: list[dict[str, Any]] = []
    for layer in state.layers:
        by_layer.extend(_overflows(layer))
        by_layer.extend(_underflow(layer, limits["tolerance"]))
    if by_layer:
        names = tuple(dict.fromkeys(entry["layer"] for entry in by_layer))
        worst = max(by_layer, key=lambda entry: float(entry["largest"]))
        verb = "has" if len(names) == 1 else "have"
        yield Found(
            upper_first(
                f"{which_layers(names, len(state.layers))} {verb} values that float16 cannot hold: "
                f"{worst['quantity']} {worst['figure']}{among(worst['layer'], names)}."
            ),
            layers=names,
            evidence={"by_layer": by_layer},
        )


@rule(
    "BN017",
    "half-precision-buffers",
    "warning",
    State,
    means="The running statistics are stored in float16 or bfloat16.",
    computed="The type of `running_mean` and `running_var`. The error that rounding can leave is "
    "at most `u·√(mean over channels of (m̂/ŝ)² + 1/4)` standard deviations, with the unit "
    "roundoff u = 2⁻¹¹ (float16) or 2⁻⁸ (bfloat16).",
    matters="Rounding alone leaves a shift of about 5e-4 (float16) and 4e-3 (bfloat16) that no "
    "recalibration removes. Worse, a moving average in half precision stands still: with momentum "
    "0.1 a bfloat16 value no longer follows changes below 2% to 4%.",
    remedy="Keep the BatchNorm layers in float32 (module.float()), and recalibrate.",
    source="fairscale issue 442, TensorRT issue 1450; measured residuals",
    unless=("BN054",),
)
def half_precision_buffers(state: State, limits: Limits) -> Iterator[Found]:
    """Statistics in float16 or bfloat16."""
    for dtype, roundoff in UNIT_ROUNDOFF.items():
        layers = [layer for layer in state.layers if layer.dtype == dtype]
        if not layers:
            continue
        names = tuple(layer.name for layer in layers)
        errors = {layer.name: _rounding(layer, roundoff) for layer in layers}
        worst = max(errors, key=lambda name: errors[name])
        verb = "stores its" if len(names) == 1 else "store their"
        yield Found(
            upper_first(
                f"{which_layers(names, len(state.layers))} {verb} statistics in {dtype}, "
                f"{BITS[dtype]} significant bits: an error of up to {errors[worst]:.2g} standard "
                f"deviations{among(worst, names)}."
            ),
            layers=names,
            evidence={"dtype": dtype, "rounding_error": errors},
            command=recalibrate_command(state),
        )


def _overflows(layer: LayerState) -> Iterator[dict[str, Any]]:
    with np.errstate(invalid="ignore"):
        scale, offset = np.abs(layer.scale), np.abs(layer.offset)
    quantities = (
        ("a mean", np.abs(layer.running_mean)),
        ("a variance", layer.running_var),
        ("a folded scale", scale),
        ("a folded offset", offset),
    )
    for quantity, values in quantities:
        large = _finite(values) > FLOAT16_MAX
        if large.any():
            largest = float(values[large].max())
            yield {
                "layer": layer.name,
                "quantity": quantity,
                "figure": f"of {largest:.4g}",
                "largest": largest / FLOAT16_MAX,
                "channels": np.flatnonzero(large).tolist(),
            }


def _underflow(layer: LayerState, tolerance: float) -> Iterator[dict[str, Any]]:
    variance = layer.running_var
    usable = (variance > 0) & (variance <= FLOAT16_MAX) & (layer.eps >= 0)
    exact = np.where(usable, variance, 1.0)
    rounded = exact.astype(np.float16).astype(np.float64)
    with np.errstate(divide="ignore"):
        change = np.abs(np.sqrt((exact + layer.eps) / (rounded + layer.eps)) - 1)
    lost = change > tolerance
    if lost.any():
        yield {
            "layer": layer.name,
            "quantity": "a variance",
            "figure": f"of {float(exact[lost].min()):.2g}, which becomes "
            f"{float(rounded[lost].min()):.2g}",
            "largest": 0.0,
            "channels": np.flatnonzero(lost).tolist(),
        }


def _rounding(layer: LayerState, roundoff: float) -> float:
    """The bound on d that rounding leaves: u|m̂|/ŝ of the mean, u/2 of the scale."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = layer.running_mean / np.sqrt(layer.running_var + layer.eps)
    mean = mean[np.isfinite(mean)]
    return roundoff * math.sqrt((float(np.mean(mean**2)) if mean.size else 0.0) + 0.25)


def _finite(values: Floats) -> Floats:
    """What is not finite counts as 0 here: BN001 to BN003 speak of it."""
    return np.where(np.isfinite(values), values, 0.0)
