"""A claim: what a paper says, what is run for it, and what would show that it holds here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from reproduce.side_by_side import SideBySide
from reproduce.significance import LEVEL, Test, difference_test, equivalence_test, holm_adjusted
from reproduce.zoo import Zoo

OfSeed = Callable[[Any], float]
"""From the figures of one seed (the claim's own dataclass) to one number."""


@dataclass(frozen=True)
class Scale:
    """How a number is printed: `shown` of it with so many `digits`, then the `unit`."""

    unit: str
    digits: int
    shown: Callable[[float], float]

    def text(self, value: float) -> str:
        """The number alone."""
        return f"{self.shown(value):.{self.digits}f}"


PERCENT = Scale("%", 1, lambda share: 100 * share)
POINTS = Scale("points", 2, lambda share: 100 * share)
NATS = Scale("nats", 3, lambda nats: nats)
SHIFT = Scale("standard deviations", 3, lambda shift: shift)
PLAIN = Scale("", 2, lambda value: value)
FACTOR = Scale("times", 2, math.exp)
"""For logarithms: a mean of them is printed as the geometric mean of the ratios."""


@dataclass(frozen=True)
class Difference:
    """The hypothesis that a seed's `value` is above 0 on average."""

    key: str
    says: str
    value: OfSeed
    scale: Scale

    @property
    def test_name(self) -> str:
        """The test, for the page."""
        return "paired t, two-sided"

    def test(self, figures: Sequence[Any], level: float) -> Test:
        """Test it on the figures of all seeds."""
        return difference_test([self.value(one) for one in figures], level)

    def holds(self, test: Test, adjusted: float) -> bool:
        """Whether the test says so, in this direction."""
        return adjusted < LEVEL and test.interval.mean > 0


@dataclass(frozen=True)
class Equivalence:
    """The hypothesis that a seed's `value` lies within ±`margin` of 0 on average."""

    key: str
    says: str
    value: OfSeed
    scale: Scale
    margin: float

    @property
    def test_name(self) -> str:
        """The test, for the page."""
        return f"two one-sided t, margin ±{self.scale.text(self.margin)} {self.scale.unit}"

    def test(self, figures: Sequence[Any], level: float) -> Test:
        """Test it on the figures of all seeds."""
        return equivalence_test([self.value(one) for one in figures], self.margin, level)

    def holds(self, test: Test, adjusted: float) -> bool:
        """Whether the test says so."""
        return adjusted < LEVEL


Hypothesis = Difference | Equivalence


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is of, and a number of a seed for each column."""

    label: str
    cells: tuple[OfSeed | None, ...]


@dataclass(frozen=True)
class Table:
    """Means over seeds with their 95% intervals; `columns` are (heading, scale)."""

    title: str
    about: str
    columns: tuple[tuple[str, Scale], ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Claim:
    """One claim. `run` gives the figures of one seed, an instance of `figures`.

    `primary` hypotheses decide the verdict, all of them have to hold; `secondary` ones are
    reported. Holm's correction is over both together. `remark` says something more, computed from
    the figures of all seeds; `prepares`: the networks that are trained for all seeds at once.
    `from_seed`: the first reported seed, where those below it were used up by another attempt.
    """

    key: str
    title: str
    says: str
    recipe: str
    seeds: int
    figures: type
    run: Callable[[Zoo], Any]
    primary: tuple[Hypothesis, ...]
    secondary: tuple[Hypothesis, ...]
    tables: tuple[Table, ...]
    plot: Callable[[Sequence[Any]], Figure]
    remark: Callable[[Sequence[Any]], str] | None = None
    prepares: tuple[SideBySide, ...] = ()
    from_seed: int = 0

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """All of them, primary first."""
        return self.primary + self.secondary


@dataclass(frozen=True)
class Outcome:
    """One hypothesis as tested: `adjusted` is Holm's p-value inside the claim."""

    hypothesis: Hypothesis
    test: Test
    adjusted: float

    @property
    def holds(self) -> bool:
        """Whether the figures bear it out."""
        return self.hypothesis.holds(self.test, self.adjusted)

    @property
    def opposite(self) -> bool:
        """Whether they say the contrary of a difference, significantly."""
        different = isinstance(self.hypothesis, Difference)
        return different and self.adjusted < LEVEL and self.test.interval.mean < 0


def outcomes_of(claim: Claim, figures: Sequence[Any]) -> list[Outcome]:
    """Every hypothesis tested; powers are at the level that Holm asks of the smallest p-value."""
    strictest = LEVEL / len(claim.hypotheses)
    tests = [hypothesis.test(figures, strictest) for hypothesis in claim.hypotheses]
    adjusted = holm_adjusted([test.p_value for test in tests])
    return [Outcome(*each) for each in zip(claim.hypotheses, tests, adjusted, strict=True)]


def verdict_of(claim: Claim, outcomes: Sequence[Outcome]) -> str:
    """The verdict on the claim: whether all its primary hypotheses hold."""
    primary = outcomes[: len(claim.primary)]
    held = sum(outcome.holds for outcome in primary)
    if held == len(primary):
        return "reproduced"
    if held == 0:
        return "not reproduced at this scale"
    return f"not reproduced at this scale ({held} of {len(primary)} primary hypotheses hold)"
