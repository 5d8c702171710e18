"""Parts of sentences: figures, layers by name, and the command that mends a stored state."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any

from bnaudit.results import Estimate, LayerAudit
from bnaudit.results.state import State

CHECKPOINT_ENDINGS = (".pt", ".pth", ".th", ".ckpt", ".bin", ".safetensors")
"""What files of weights are called; any other source is a model, which no command can read."""


def some_of(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(named(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def which_layers(names: Sequence[str], of: int) -> str:
    """`layer a`, `all 19 layers` or `3 of 19 layers (a, b, c)`, as the subject of a sentence."""
    if len(names) == 1:
        return f"layer {names[0]}"
    if len(names) == of:
        return f"all {of} layers"
    return f"{len(names)} of {of} layers ({some_of(names)})"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 channel`, `2,048 channels`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def among(worst: str, names: Collection[object]) -> str:
    """` in a`, where the layer is one of several that the sentence is about."""
    return f" in {named(worst)}" if len(names) > 1 else ""


def upper_first(sentence: str) -> str:
    """The sentence with a capital letter, the rest as it is."""
    return sentence[:1].upper() + sentence[1:]


def recalibrate_command(state: State) -> str | None:
    """The command that estimates the statistics anew; None where no file is known."""
    if state.recalibrate is not None:
        return state.recalibrate
    if PurePath(state.source).suffix.lower() not in CHECKPOINT_ENDINGS:
        return None
    named_by_user = "--model MODEL --data DATA --transform TRANSFORM"
    return f"bnaudit recalibrate {shlex.quote(state.source)} {named_by_user}"


def number(value: float) -> str:
    """Three significant digits: `0.283`, `12.4`, `1.3e+05`."""
    return f"{value:.3g}"


def with_interval(estimate: Estimate) -> str:
    """`0.283 (95% interval 0.27 to 0.296)`."""
    if estimate.low is None or estimate.high is None:
        return number(estimate.value)
    return (
        f"{number(estimate.value)} (95% interval {number(estimate.low)} to {number(estimate.high)})"
    )


def named(name: str) -> str:
    """A layer's name; one that is only a number, as nn.Sequential gives, would read as a figure."""
    return f"layer {name}" if name.replace(".", "").isdigit() else name


def names_of(layers: Sequence[LayerAudit]) -> tuple[str, ...]:
    """Their names."""
    return tuple(layer.name for layer in layers)


def evidence(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate as plain data."""
    if estimate is None:
        return None
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def root_mean_square(values: Sequence[float]) -> float:
    """0 of nothing."""
    return (sum(v * v for v in values) / len(values)) ** 0.5 if values else 0.0
