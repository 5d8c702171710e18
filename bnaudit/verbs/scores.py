"""From what came of each sample to the figures of a result."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from bnaudit.engine.variants import Array, Outcomes
from bnaudit.results import Change
from bnaudit.results.scores import Figure, Scores
from bnaudit.stats.paired import MIN_PAIRS, accuracy_change, mean_change, share

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


def accuracy_between(before: Outcomes, after: Outcomes, among: Mask | None = None) -> Change | None:
    """The accuracy on the labelled samples that took part on both sides, with Tango's interval."""
    old, new = _both(before.correct, after.correct, among)
    if not len(old):
        return None
    a, b = old > 0.5, new > 0.5
    only_before, only_after = int((a & ~b).sum()), int((b & ~a).sum())
    return Change(*accuracy_change(only_before, only_after, int((a & b).sum()), len(a)))


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
