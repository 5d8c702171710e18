"""How many calibration samples suffice, from recalibrations on several numbers of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnaudit.engine.variants import Array, Outcomes
from bnaudit.results import NOISE_ENOUGH, Change
from bnaudit.results.scores import Figure
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
    """The draws of one number of calibration samples, and what came of each."""

    size: int
    outcomes: list[Outcomes]
    residuals: list[Residual]

    def stacked(self, name: str, chosen: Array) -> Array:
        """A figure of the chosen samples in each draw, (D, n)."""
        return np.stack([getattr(one, name)[chosen] for one in self.outcomes])


@dataclass(frozen=True)
class _Judged:
    """One number of samples against the largest one; `last`: whether it is that."""

    size: int
    last: bool
    accuracy: Change | None
    loss: Change | None
    residual: Figure

    @property
    def by_the_figures(self) -> bool:
        """Whether it is enough by the figures themselves."""
        fine = self.accuracy is None or self.accuracy.difference >= -MOST_LOSS
        return fine and self.residual.value <= NOISE_ENOUGH

    @property
    def surely(self) -> bool:
        """Whether it is by the limits of their intervals, which a single draw has not.

        Of the largest number the figure itself counts: it mostly takes all the data, once.
        """
        low = self.accuracy.low if self.accuracy is not None else 0.0
        high = self.residual.value if self.last else self.residual.high
        if low is None or high is None:
            return False
        return low >= -MOST_LOSS and high <= NOISE_ENOUGH


def enough_samples(by_size: Sequence[OfSize], seed: int) -> Conclusion | None:
    """The smallest number of samples that suffices; None with a single number, or no residual.

    A number suffices where it and every larger one that was tried (1) lose no more than
    `MOST_LOSS` of the accuracy of the largest, and (2) leave a residual ESM, the root mean square
    over layers on held-out data, of at most `NOISE_ENOUGH`. It is `significant` where both hold by
    the limits of the 95% intervals (over samples and draws), not only by the figures; `candidates`
    are the numbers from it on to the first for which they do. Without labels (2) alone decides.
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
    sure = surely is not None and surely <= enough
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
    residual = Figure(*over_draws(np.array(values)))
    labelled = ~np.isnan(one.outcomes[0].correct)
    if one is largest or not labelled.any():
        return _Judged(one.size, one is largest, _none(one, labelled), None, residual)
    accuracy = accuracy_change_over_draws(
        largest.stacked("correct", labelled), one.stacked("correct", labelled)
    )
    loss = mean_change_over_draws(
        largest.stacked("loss", labelled), one.stacked("loss", labelled), seed
    )
    change = Change(*loss) if loss is not None else None
    return _Judged(one.size, False, Change(*accuracy), change, residual)


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
        f"still {largest.residual.value:.2g} there, and up to {NOISE_ENOUGH:g} counts as enough. "
        "Give more samples; where the residual no longer falls, the held-out data are others.",
        gain=largest.accuracy,
    )


def _sentence(answer: _Judged, largest: _Judged, surely: _Judged | None, *, sure: bool) -> str:
    residual = f"the residual ESM is {answer.residual.value:.2g}"
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
