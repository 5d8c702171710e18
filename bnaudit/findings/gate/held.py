"""A figure with its interval, held against a limit.

A limit is exceeded where the figure is above it beyond its noise. A figure that may or may not be
above it passes where the data are enough to rule out an excess of half the limit (or of 0.01, where
that is more: no number of samples rules out nothing at all), and is inconclusive where they are
not: so the verdict does not hang on which side of the limit a figure falls by chance, and too
little data never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bnaudit.findings.phrases import number
from bnaudit.results import Check, Estimate, LayerAudit, Outcome

EXCESS = 1.5
"""Times the limit: what has to be ruled out for a figure near its limit to pass."""

LEAST_EXCESS = 0.01
"""Above the limit, in the figure's own unit: no less has to be ruled out."""


def ruled_out_from(limit: float) -> float:
    """What the data have to rule out for a figure to pass this limit."""
    return max(EXCESS * limit, limit + LEAST_EXCESS)


@dataclass(frozen=True)
class Wording:
    """How a figure and its limit are shown.

    A figure that is judged by what is left to 1, as accuracy is by the wrong answers, is said the
    other way round.
    """

    shown: Callable[[float], str]
    beyond: str = "above"
    other_way_round: bool = False

    def own(self, value: float) -> float:
        """The figure itself, of the one that is judged."""
        return 1 - value if self.other_way_round else value

    def interval(self, low: float, high: float) -> str:
        """Its ends, the lower one first."""
        ends = (high, low) if self.other_way_round else (low, high)
        return f"{self.shown(ends[0])} to {self.shown(ends[1])}"


PLAIN = Wording(number)
"""A figure in its own unit."""


def held(
    check: Check, says: str, estimate: Estimate, limit: float, wording: Wording = PLAIN
) -> Check:
    """The check with its outcome; `says`: its sentence, with `{figure}` in place of the figure."""
    check = replace(check, value=wording.own(estimate.value))
    figure = wording.shown(estimate.value)
    if estimate.low is None or estimate.high is None:
        sentence = f"{says.replace('{figure}', figure)}: too few samples for an interval."
        return settled(check, "inconclusive", sentence, (), "Measure on more samples.")
    figure += f" (95% interval {wording.interval(estimate.low, estimate.high)})"
    said, limit_said = says.replace("{figure}", figure), wording.shown(limit)
    if estimate.low > limit:
        return settled(check, "fail", f"{said}, {wording.beyond} {limit_said}.", ())
    if estimate.high > ruled_out_from(limit):
        sentence = f"{said}: whether it is {wording.beyond} {limit_said} is open."
        return settled(check, "inconclusive", sentence, (), "Measure on more samples.")
    if estimate.value > limit:
        said += f": not {wording.beyond} {limit_said} for certain"
    return settled(check, "pass", f"{said}.", ())


def without_figure(check: Check, why: str) -> Check:
    """The check of a limit on something that the measurement has no figure of: it fails, since
    more samples would not help."""
    sentence = f"{check.name} is set, and there is no figure to hold against it: {why}."
    remedy = "Give data that have it, or take the limit out of the settings."
    return settled(check, "fail", sentence, (), remedy)


def settled(
    check: Check,
    outcome: Outcome,
    sentence: str,
    layers: Sequence[LayerAudit],
    remedy: str | None = None,
) -> Check:
    """The check with what came of it."""
    names = tuple(layer.name for layer in layers)
    return replace(check, outcome=outcome, sentence=sentence, layers=names, remedy=remedy)
