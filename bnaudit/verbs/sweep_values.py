"""The values of a sweep: what they may be, and what they are where nobody says. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

from bnaudit.errors import InputError
from bnaudit.results.sweep import Kind


@dataclass(frozen=True)
class Allowed:
    """Which values a kind of sweep takes: `what` they are, `words` for the range, an example.

    `low`, `high`: the range; `above`: whether `low` itself is outside; `whole`: integers alone.
    """

    what: str
    words: str
    example: str
    low: float
    high: float = math.inf
    above: bool = False
    whole: bool = False

    def takes(self, value: float) -> bool:
        """Whether it is such a value."""
        inside = self.low < value if self.above else self.low <= value
        whole = not self.whole or value == int(value) if math.isfinite(value) else False
        return inside and value <= self.high and whole


ALLOWED: dict[Kind, Allowed] = {
    "batch-size": Allowed(
        "mini-batch size", "a whole number, 2 or more", "2,8,32,128", low=2, whole=True
    ),
    "samples": Allowed(
        "number of samples", "a whole number, 2 or more", "16,64,256,1000", low=2, whole=True
    ),
    "prior": Allowed("strength of a prior", "a number, 0 or more", "0,16,64,256", low=0),
    "example-weight": Allowed(
        "weight of an example", "a number from 0 to 1", "0,0.05,0.1,0.2", low=0, high=1
    ),
    "momentum": Allowed(
        "momentum", "a number above 0, and at most 1", "0.3,0.1,0.01", low=0, high=1, above=True
    ),
}

PRIORS = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
SIZES = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
MOMENTA = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
FEWEST_SAMPLES = 16
"""With one or two samples statistics are worse than none."""


def parsed_values(kind: Kind, text: str) -> tuple[float, ...]:
    """`2,4,8` as numbers. Raises `InputError` for what is none, or cannot be meant."""
    allowed = ALLOWED[kind]
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part.strip()))
        except ValueError:
            raise InputError(
                f"--values {text}: {part.strip()!r} is no number; give {_plural(allowed.what)} "
                f"separated by commas, such as {allowed.example}"
            ) from None
    return checked_values(kind, numbers, said=f"--values {text}")


def checked_values(kind: Kind, values: Iterable[Any], said: str | None = None) -> tuple[float, ...]:
    """The values in ascending order. Raises `InputError` for what cannot be meant.

    `values`: numbers of any type, also of NumPy. `said`: how they were given, for messages.
    """
    allowed = ALLOWED[kind]
    if not isinstance(values, Iterable):
        raise InputError(f"values {values!r}: give several in a list, such as [{allowed.example}]")
    given = tuple(values)
    said = said or f"values {', '.join(map(str, given))}".strip()
    if not given:
        raise InputError(f"{said}: there is none; give some, such as {allowed.example}")
    for value in given:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(f"{said}: {value!r} is no number; give {allowed.words}")
        if not allowed.takes(float(value)):
            raise InputError(f"{said}: {float(value):g} is no {allowed.what}; give {allowed.words}")
    ordered = tuple(sorted(map(float, given)))
    for one, next_one in pairwise(ordered):
        if one == next_one:
            raise InputError(f"{said}: {one:g} stands there twice; give each value once")
    return ordered


def checked_sizes(values: Iterable[Any]) -> tuple[int, ...]:
    """Mini-batch sizes in ascending order. Raises `InputError` for what cannot be one."""
    return tuple(map(int, checked_values("batch-size", values)))


def checked_draws(draws: Any) -> int:
    """A number of draws. Raises `InputError` for what is none."""
    if isinstance(draws, bool) or not isinstance(draws, Integral) or draws < 1:
        raise InputError(f"draws is {draws!r}: give a positive number")
    return int(draws)


def doubling(most: int) -> tuple[float, ...]:
    """16, 32, 64, … and `most`: numbers of samples to try of so many; `most` itself of fewer."""
    numbers, n = [], FEWEST_SAMPLES
    while n < most:
        numbers.append(float(n))
        n *= 2
    # the last step is not to be a small one
    if len(numbers) > 1 and numbers[-1] > 0.75 * most:
        numbers.pop()
    return (*numbers, float(most))


def _plural(what: str) -> str:
    head, space, tail = what.partition(" of ")
    plural = "momenta" if head == "momentum" else f"{head}s"
    return plural + space + tail
