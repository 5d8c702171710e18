"""How figures are written: three significant digits, no more characters than needed."""

from __future__ import annotations

import math

from bnaudit.results import Estimate


def short(value: float | None) -> str:
    """`.283`, `1.23`, `84.2`, `371`, `2.1e5`; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if size >= 9999.5:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
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


def percent(value: float | None) -> str:
    """`81.0%`."""
    return "–" if value is None else f"{value:.1%}"
