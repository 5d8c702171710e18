"""How many calibration samples suffice, from recalibrations on several numbers of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnaudit.engine.variants import Array, Outcomes
from bnaudit.results import NOISE_ENOUGH, Change
from bnaudit.results.sweep import Conclusion
from bnaudit.stats.draws import (
    accuracy_change_over_draws,
    mean_change_over_draws,
    over_draws,
)
from bnaudit.verbs.change_words import in_points
from bnaudit.verbs.held_out import Residual

MOST_LOSS = 0.005
"""Accuracy, 0 to 1, that fewer samples may cost: what `recalibrate` allows (--max-loss)."""


@dataclass(frozen=True)
class OfSize:
    """The draws of one number of calibration samples, and what came of each.

    `whole`: it takes all the data, so that there is nothing to draw.
    """

    size: int
    outcomes: list[Outcomes]
    residuals: list[Residual]
    whole: bool = False

    def stacked(self, name: str, chosen: Array) -> Array:
        """A figure of the chosen samples in each draw, (D, n)."""
        return np.stack([getattr(one, name)[chosen] for one in self.outcomes])


@dataclass(frozen=True)
class _Judged:
    """One number of samples against the largest one.

    `highest`: the upper limit of the residual, over the draws and the held-out samples; None where
    either is unknown.
    """

    size: int
    accuracy: Change | None
    loss: Change | None
    residual: float
    highest: float | None

    @property
    def by_the_figures(self) -> bool:
        """Whether it is enough by the figures themselves."""
        fine = self.accuracy is None or self.accuracy.difference >= -MOST_LOSS
        return fine and self.residual <= NOISE_ENOUGH

    @property
    def surely(self) -> bool:
        """Whether it is by the limits of their intervals, which a single draw has not."""
        low = self.accuracy.low if self.accuracy is not None else 0.0
        if low is None or self.highest is None:
            return False
        return low >= -MOST_LOSS and self.highest <= NOISE_ENOUGH


def enough_samples(by_size: Sequence[OfSize], seed: int) -> Conclusion | None:
    """The smallest number of samples that suffices; None with a single number, or no residual.

    A number suffices where it and every larger one that was tried (1) lose no more than
    `MOST_LOSS` of the accuracy of the largest, and (2) leave a residual ESM, the root mean square
    over layers on held-out data, of at most `NOISE_ENOUGH`. It is `significant` where something
    larger was tried and both hold by the limits of the 95% intervals (over held-out samples and
    draws), not only by the figures; `candidates` are the numbers from it on to the first for which
    they do. Without labels (2) alone decides.
    """
    ordered = sorted(by_size, key=lambda one: one.size)
    judged = [_judged(one, ordered[-1], seed) for one in ordered]
    known = [one for one in judged if one is not None]
    if len(known) < 2 or len(known) < len(judged):
        return None
    enough = _from_on([one.by_the_figures for one in known])
    if enough is None:
        return _not_enough(known[-1])
    surely = _from_on([one.surely for one in known])
    answer = known[enough]
    sure = surely is not None and surely <= enough < len(known) - 1
    until = len(known) if surely is None else surely + 1
    candidates = tuple(float(one.size) for one in known[enough:until]) if not sure else ()
    return Conclusion(
        "enough-samples",
        _sentence(answer, known[-1], known[surely] if surely is not None else None, sure=sure),
        float(answer.size),
        candidates,
        answer.accuracy,
        answer.loss,
        significant=sure,
    )


def _from_on(holds: Sequence[bool]) -> int | None:
    """The first place from which on it holds; None where it does not at the end."""
    if not holds[-1]:
        return None
    first = len(holds) - 1
    while first > 0 and holds[first - 1]:
        first -= 1
    return first


def _judged(one: OfSize, largest: OfSize, seed: int) -> _Judged | None:
    values = [value for r in one.residuals if (value := r.over_layers) is not None]
    if not values:
        return None
    residual, highest = float(np.mean(values)), _highest(one, np.array(values))
    labelled = ~np.isnan(one.outcomes[0].correct)
    if one is largest or not labelled.any():
        return _Judged(one.size, _none(one, labelled), None, residual, highest)
    accuracy = accuracy_change_over_draws(
        largest.stacked("correct", labelled), one.stacked("correct", labelled)
    )
    loss = mean_change_over_draws(
        largest.stacked("loss", labelled), one.stacked("loss", labelled), seed
    )
    change = Change(*loss) if loss is not None else None
    return _Judged(one.size, Change(*accuracy), change, residual, highest)


def _highest(one: OfSize, values: Array) -> float | None:
    """The limit over draws, wider by what the held-out samples add, which are those of all draws.

    Put together by their squares, as in `accuracy_change_over_draws`.
    """
    sampling = [r.sampling for r in one.residuals if r.sampling is not None]
    mean, _, high = over_draws(values)
    drawn = 0.0 if one.whole else None if high is None else high - mean
    if drawn is None or len(sampling) < len(one.residuals):
        return None
    return mean + math.hypot(drawn, float(np.mean(sampling)))


def _none(one: OfSize, labelled: Array) -> Change | None:
    """The largest number against itself."""
    if not labelled.any():
        return None
    accuracy = float(one.stacked("correct", labelled).mean())
    return Change(accuracy, accuracy, 0.0, 0.0, 0.0)


def _not_enough(largest: _Judged) -> Conclusion:
    return Conclusion(
        "enough-samples",
        f"Not even {largest.size:,} samples suffice: the residual ESM on the held-out data is "
        f"still {largest.residual:.2g} there, and up to {NOISE_ENOUGH:g} counts as enough. "
        "Give more samples; where the residual no longer falls, the held-out data are others.",
        gain=largest.accuracy,
    )


def _sentence(answer: _Judged, largest: _Judged, surely: _Judged | None, *, sure: bool) -> str:
    residual = f"the residual ESM is {answer.residual:.2g}"
    if answer.size == largest.size:
        return (
            f"Of the numbers that were tried only the largest, {answer.size:,} samples, suffices: "
            f"{residual}."
        )
    cost = _cost(answer, largest)
    if sure:
        return f"{answer.size:,} samples suffice: {cost}, and {residual}."
    if surely is not None and surely.size < largest.size:
        certain = f"for certain (95%) it takes {surely.size:,}"
    else:
        certain = "held-out data or draws are too few, or differ too much, to be certain (95%)"
    return f"Probably {answer.size:,} samples suffice: {cost}, and {residual}; {certain}."


def _cost(answer: _Judged, largest: _Judged) -> str:
    change = answer.accuracy
    if change is None:
        return "without labels the residual alone decides"
    return f"against {largest.size:,} the accuracy changes by {in_points(change)}"
