"""Figures that are compared or counted over samples, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """A figure before and after on the same samples; `low` and `high` bound the difference.

    `difference` = after − before, with its 95% interval from paired samples, None where it is
    withheld.
    """

    before: float
    after: float
    difference: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Share:
    """A share of samples (0 to 1) with its 95% interval (Wilson)."""

    value: float
    low: float
    high: float
