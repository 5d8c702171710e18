"""The value of a sweep whose statistics do best, chosen on one half of the held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bnaudit.engine.variants import Outcomes
from bnaudit.results import Change
from bnaudit.verbs.change_words import in_nats, in_points, surely_changes
from bnaudit.verbs.scores import Mask, accuracy_between, loss_between

FEWEST = 40
"""Labelled samples: fewer, in two halves, choose by chance and judge nothing."""


@dataclass(frozen=True)
class Best:
    """The value of lowest loss on one half, and what it gains over a reference on the other.

    `candidates`: the values whose loss cannot be told from its loss, on all labelled samples.
    `significant`: whether the loss is lower for certain (95%), on the half that did not choose.
    """

    value: float
    candidates: tuple[float, ...]
    accuracy: Change | None
    loss: Change | None

    @property
    def significant(self) -> bool:
        """By the limits of the loss."""
        return self.loss is not None and self.loss.difference < 0 and surely_changes(self.loss)

    def on_the_other_half(self, reference: str) -> str:
        """What the value does against a reference where it was not chosen, in a sentence's end."""
        certain = "" if self.significant else "; a lower loss is not shown (95%)"
        return (
            f"on the other half, against {reference}, the loss goes {in_nats(self.loss)}, and the "
            f"accuracy changes by {in_points(self.accuracy)}{certain}."
        )


def best_value(reference: Outcomes, by_value: Mapping[float, Outcomes], seed: int) -> Best | None:
    """None without labels, with fewer than `FEWEST`, or where no loss is finite."""
    if np.count_nonzero(~np.isnan(reference.correct)) < FEWEST:
        return None
    found = best_on_half(reference, by_value)
    if found is None:
        return None
    value, judging = found
    best = by_value[value]
    candidates = tuple(
        other
        for other, outcomes in sorted(by_value.items())
        if other == value or not surely_worse(loss_between(best, outcomes, seed))
    )
    return Best(
        value,
        candidates,
        accuracy_between(reference, best, judging),
        loss_between(reference, best, seed, judging),
    )


def best_on_half(
    estimates: Outcomes, by_value: Mapping[float, Outcomes]
) -> tuple[float, Mask] | None:
    """(the value of lowest mean loss on every other labelled sample, the mask of the others).

    Samples are read in a random order, or in the loader's. A value under which a loss is not finite
    is not chosen; None where none is left.
    """
    judging = judging_half(estimates)
    choosing = ~np.isnan(estimates.correct) & ~judging
    losses = {value: float(found.loss[choosing].mean()) for value, found in by_value.items()}
    finite = {value: loss for value, loss in losses.items() if np.isfinite(loss)}
    if not finite or not judging.any():
        return None
    return min(finite, key=lambda value: finite[value]), judging


def judging_half(estimates: Outcomes) -> Mask:
    """Every other labelled sample, (N,): those that do not choose."""
    labelled = ~np.isnan(estimates.correct)
    half: Mask = labelled & (np.cumsum(labelled) % 2 == 0)
    return half


def surely_worse(loss: Change | None) -> bool:
    """Whether a loss is higher by the lower limit of its change; one that is not finite is."""
    return loss is None or (loss.low is not None and loss.low > 0)
