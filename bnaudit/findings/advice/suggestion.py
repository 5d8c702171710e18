"""What a remedy is before it is ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from bnaudit.findings.advice.case import Case
from bnaudit.results.advice import Sentence


class Standing(IntEnum):
    """How a remedy is ranked: by what has to be settled before what, not by how large a figure is.

    FIRST makes the other figures mean something (wrong data, a wrong eps, outputs that are not
    finite). DECIDED is what the measured figures speak for, DECIDING what would settle an open
    outcome, POSSIBLE what may serve once it is settled, TRAINING what needs training or another
    model, ASIDE what concerns little. AGAINST: the figures speak against it.
    """

    FIRST = 0
    DECIDED = 1
    DECIDING = 2
    POSSIBLE = 3
    TRAINING = 4
    ASIDE = 5
    AGAINST = 6


@dataclass(frozen=True)
class Suggestion:
    """A remedy that speaks to a case, with its evidence; as `results.advice.Remedy` otherwise."""

    name: str
    title: str
    standing: Standing
    sentences: tuple[Sentence, ...]
    cost: str
    command: str | None = None


Family = Callable[[Case], Iterator[Suggestion]]
"""The remedies of one family that speak to a case, the more important first."""
