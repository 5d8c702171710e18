"""How figures are written: three significant digits, no more characters than needed."""

from __future__ import annotations

import math
from collections.abc import Callable

from bnaudit.results import Estimate

ROUNDING = 1e-12
"""What float64 leaves of a shift that is none."""


def short(value: float | None) -> str:
    """`.283`, `1.23`, `84.2`, `371`, `2.1e5`, `4e-4`; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return f"{value:g}"
    size = abs(value)
    if size < ROUNDING:
        value = size = 0.0
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
    """`0.884`, `371`: three decimals while they say something."""
    if value is None or math.isnan(value) or abs(value) >= 99.9995:
        return short(value)
    return f"{value:.3f}"


def percent(value: float | None) -> str:
    """`81.0%`."""
    return "–" if value is None else f"{value:.1%}"


def signed(value: float | None) -> str:
    """`+.242`, `-3.1`, `.000`: a difference, in the form of `short`."""
    text = short(value)
    return f"+{text}" if value is not None and value >= ROUNDING else text


def signed_loss(value: float | None) -> str:
    """`+0.031`, `-0.350`: a difference of losses."""
    if value is None or math.isnan(value) or abs(value) >= 99.9995:
        return signed(value)
    return _without_minus_zero(f"{value:+.3f}")


def points(value: float | None) -> str:
    """`+14.2`: a difference of shares, in percentage points."""
    return "–" if value is None or math.isnan(value) else _without_minus_zero(f"{value * 100:+.1f}")


def span(low: float | None, high: float | None, write: Callable[[float | None], str]) -> str:
    """`+12.1 to +16.3`: an interval, each end as `write` writes it; or `withheld`."""
    return "withheld" if low is None or high is None else f"{write(low)} to {write(high)}"


def size(count: int) -> str:
    """`512 B`, `1.2 MB`, `8.0 GB`: bytes."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _without_minus_zero(text: str) -> str:
    """`-0.0` reads like a loss."""
    return text if text.strip("+-0.") else text.lstrip("+-")
