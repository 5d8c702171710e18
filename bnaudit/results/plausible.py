"""What the types of a result allow and no measurement writes: told with the field's path.

One table for all documents, by the names of fields, so that whoever reads a result can rely on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from bnaudit.results.audit import DataInfo, NetworkAudit
from bnaudit.results.gate import Check
from bnaudit.results.layers import LayerAudit, VarianceRatio

ANY_SIGN = {"num_batches_tracked"}
"""Integers that may be negative: a damaged checkpoint's. All others are counts or indices."""

NOT_NEGATIVE = {
    *("value", "plain", "noise_floor", "standard_error", "loss_standard_error"),
    *("mean_part", "scale_part", "worst_channel_shift", "p95_channel_shift"),
    *("unnormalised_mean_norm", "unnormalised_std_norm", "discrepancy", "batch_noise"),
    *("left_out_squared_shift", "left_out_squared_output_shift", "relative_rms"),
    *("unexplained", "spread"),
    *("wall_seconds", "data", "forward", "moments", "collectives", "waiting", "rest"),
}
"""Roots of squares, squares, and errors."""

SHARES = {"accuracy", "agreement", "p_value", "concentration", "above"}
"""Between 0 and 1, but for rounding."""

ROUNDING = 1e-9

SQUARES = {"standard_error", "left_out_squared_shift", "left_out_squared_output_shift"}

LARGEST = 1e50
"""Of a figure that is no square: beyond what float32 gives, and its fourth power is a number."""

LARGEST_LOGARITHM = 700.0
"""Of a ratio of variances: its exponential is a number."""

UNIQUE = {"layers"}
"""Lists of what has a name of its own."""

Problem = tuple[str, str]
"""The field's path, and what is wrong with it."""


def problems(value: Any, path: str = "") -> Iterator[Problem]:
    """What cannot be, in a result and everything in it, in the order of its fields."""
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from problems(item, f"{path}.{index}" if path else str(index))
    if not is_dataclass(value):
        return
    for field in fields(value):
        inner = getattr(value, field.name)
        at = f"{path}.{field.name}" if path else field.name
        if not (isinstance(value, Check) and field.name == "value"):  # a change has any sign
            yield from ((at, reason) for reason in _of_field(field.name, inner))
        yield from problems(inner, at)
    yield from ((path or "the document", reason) for reason in _of_interval(value))
    yield from ((f"{path}.{at}".lstrip("."), reason) for at, reason in _of_whole(value))


def _of_field(name: str, value: Any) -> Iterator[str]:
    values = value if isinstance(value, tuple) else (value,)
    if name in UNIQUE:
        names = [getattr(item, "name", None) for item in values]
        seen: set[str] = set()
        for one in filter(None, names):
            if one in seen:
                yield f"two are called {one!r}"
            seen.add(one)
        return
    for one in values:
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            continue
        counts = isinstance(one, int) and name not in ANY_SIGN
        if one < 0 and (counts or name in NOT_NEGATIVE):
            yield f"{one:g} is negative"
        if abs(one) > LARGEST and name not in SQUARES:
            yield f"{one:g} is too large"
        if name in SHARES and not -ROUNDING <= one <= 1 + ROUNDING:
            yield f"{one:g} is not between 0 and 1"


def _of_interval(value: Any) -> Iterator[str]:
    for below, above in (("low", "high"), ("surely_low", "surely_high"), ("minimum", "maximum")):
        low, high = getattr(value, below, None), getattr(value, above, None)
        if low is not None and high is not None and low > high:
            yield f"{below} {low:g} is above {above} {high:g}"


def _of_whole(value: Any) -> Iterator[Problem]:
    """Figures of one object that do not fit each other."""
    if isinstance(value, LayerAudit):
        yield from _of_layer(value)
    elif isinstance(value, NetworkAudit):
        yield from _of_network(value)
    elif isinstance(value, VarianceRatio):
        if abs(value.log_median) > LARGEST_LOGARITHM:
            yield "log_median", f"{value.log_median:g} is too large"
        if value.channels < 1:
            yield "channels", "0, and of none there is no ratio"
    elif isinstance(value, DataInfo) and value.samples > (value.available or value.samples):
        yield "samples", f"{value.samples} of {value.available} that there are"


def _of_layer(layer: LayerAudit) -> Iterator[Problem]:
    for shift, name in (
        (layer.total_shift, "left_out_squared_shift"),
        (layer.output_shift, "left_out_squared_output_shift"),
    ):
        entries = len(getattr(layer, name))
        if shift is not None and shift.groups and entries and entries != shift.groups:
            yield name, f"{entries} entries for {shift.groups} groups"
    indices = [*layer.undefined_channels, layer.worst_channel]
    for index in indices:
        if index is not None and index >= layer.channels:
            yield "channels", f"{layer.channels}, and channel {index} is named"


def _of_network(network: NetworkAudit) -> Iterator[Problem]:
    discordant = (network.only_deployed_correct or 0) + (network.only_batch_correct or 0)
    if discordant > network.compared:
        yield "compared", f"{network.compared}, and {discordant} of them differ"
    if network.agreed is not None and network.agreed.count != network.compared:
        yield "agreed", f"{network.agreed.count} marks for {network.compared} samples"
    scored = network.deployed.samples if network.deployed is not None else None
    if network.correct is not None and scored is not None and network.correct.count != scored:
        yield "correct", f"{network.correct.count} marks for {scored} samples"
