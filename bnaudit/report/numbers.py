"""How figures are written: three significant digits, no more characters than needed."""

from __future__ import annotations

import math

from bnaudit.results import Estimate


def short(value: float | None) -> str:
    """`.283`, `1.23`, `84.2`, `371`, `2.1e5`, `4e-4`; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return f"{value:g}"
    size = abs(value)
    if size >= 9999.5 or 0 < size < 0.0005:
        mantissa, exponent = f"{value:.{1 if size >= 1 else 0}e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if size >= 99.95:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3f}".replace("0.", ".", 1)


def interval(estimate: Estimate) -> str:
    """`.270–.296`, or `withheld`."""
    if estimate.low is None or estimate.high is None:
        return "withheld"
    return f"{short(estimate.low)}–{short(estimate.high)}"


def loss(value: float | None) -> str:
    """`0.884`."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def percent(value: float | None) -> str:
    """`81.0%`."""
    return "–" if value is None else f"{value:.1%}"
