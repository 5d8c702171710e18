"""From what came of each sample to the figures of a result."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnaudit.engine.variants import Array, Outcomes
from bnaudit.results import Change
from bnaudit.results.scores import Figure, Scores
from bnaudit.stats.paired import MIN_PAIRS, accuracy_change, mcnemar, mean_change, share

Mask = NDArray[np.bool_]


def scores_of(outcomes: Outcomes, among: Mask | None = None) -> Scores:
    """The scores over the samples that took part, and are `among` these where given.

    Shares have Wilson's interval, means Student's.
    """
    chosen = outcomes.took_part if among is None else outcomes.took_part & among
    correct = _known(outcomes.correct, chosen)
    return Scores(
        samples=int(chosen.sum()),
        labelled=len(correct),
        accuracy=_share(correct),
        loss=mean_figure(_known(outcomes.loss, chosen, labelled=outcomes.correct)),
        agreement=_share(_known(outcomes.agree, chosen)),
        kl=mean_figure(_known(outcomes.kl, chosen, labelled=outcomes.agree)),
        relative_rms=outcomes.relative_rms,
    )


@dataclass(frozen=True)
class PairedAccuracy:
    """The accuracy before and after on the same `samples`, with Tango's interval.

    `only_before`, `only_after`: the samples that only one side gets right.
    """

    samples: int
    change: Change
    only_before: int
    only_after: int

    @property
    def p_value(self) -> float:
        """McNemar's exact two-sided one."""
        return mcnemar(self.only_before, self.only_after)


def paired_accuracy(before: Array, after: Array) -> PairedAccuracy | None:
    """From whether each sample is right, 1 or 0, on either side; None without samples."""
    if not len(before):
        return None
    old, new = before > 0.5, after > 0.5
    only_before, only_after = int((old & ~new).sum()), int((new & ~old).sum())
    change = accuracy_change(only_before, only_after, int((old & new).sum()), len(old))
    return PairedAccuracy(len(old), Change(*change), only_before, only_after)


def paired_outcomes(
    before: Outcomes, after: Outcomes, among: Mask | None = None
) -> PairedAccuracy | None:
    """The accuracy on the labelled samples that took part on both sides."""
    return paired_accuracy(*_both(before.correct, after.correct, among))


def accuracy_between(before: Outcomes, after: Outcomes, among: Mask | None = None) -> Change | None:
    """As `paired_outcomes`: the difference alone."""
    found = paired_outcomes(before, after, among)
    return found.change if found is not None else None


def loss_between(
    before: Outcomes, after: Outcomes, seed: int, among: Mask | None = None
) -> Change | None:
    """The mean loss on the samples that took part on both sides, with a bootstrap-t interval.

    None where a loss is not finite.
    """
    labelled = ~(np.isnan(before.correct) | np.isnan(after.correct))
    chosen = labelled if among is None else labelled & among
    found = mean_change(before.loss[chosen], after.loss[chosen], seed)
    return Change(*found) if found is not None else None


def mean_figure(values: Array) -> Figure | None:
    """The mean and Student's 95% interval; None of no values, or where one is not finite.

    Limits are withheld below `MIN_PAIRS` values.
    """
    if not len(values) or not np.isfinite(values).all():
        return None
    mean = float(values.mean())
    if len(values) < MIN_PAIRS:
        return Figure(mean)
    from scipy import stats as scipy_stats

    half = float(scipy_stats.t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1))
    half /= math.sqrt(len(values))
    return Figure(mean, mean - half, mean + half)


def _share(marks: Array) -> Figure | None:
    return Figure(*share(int(marks.sum()), len(marks))) if len(marks) else None


def _known(values: Array, chosen: Mask, labelled: Array | None = None) -> Array:
    """The values of the chosen samples; `labelled` tells a missing one from one that is NaN."""
    known = ~np.isnan(values if labelled is None else labelled)
    return values[chosen & known]


def _both(old: Array, new: Array, among: Mask | None) -> tuple[Array, Array]:
    known = ~(np.isnan(old) | np.isnan(new))
    chosen = known if among is None else known & among
    return old[chosen], new[chosen]
