"""What a run of `bnaudit sweep` leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class SweepRan:
    """What a run of the command left behind: its exit code and both streams."""

    code: int
    out: str
    err: str


Sweeping = Callable[..., SweepRan]
