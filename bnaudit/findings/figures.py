"""How sentences of findings write figures and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnaudit.results import Estimate, LayerAudit


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
