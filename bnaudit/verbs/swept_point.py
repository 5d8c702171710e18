"""A point of a sweep whose values each give new statistics, tried on held-out data."""

from __future__ import annotations

from bnaudit.engine.variants import Outcomes
from bnaudit.results.sweep import SweepPoint
from bnaudit.verbs.held_out import Tried, residual_figure
from bnaudit.verbs.scores import accuracy_between, loss_between, scores_of


def swept_point(value: float, place: int, tried: Tried, exact: Outcomes, seed: int) -> SweepPoint:
    """The point of the statistics that were tried in this place."""
    outcomes, residual = tried.outcomes[place], tried.residuals[place]
    same = outcomes is exact
    return SweepPoint(
        value=value,
        role="held-out",
        scores=scores_of(outcomes),
        accuracy_change=accuracy_between(tried.estimates, outcomes),
        loss_change=loss_between(tried.estimates, outcomes, seed) if tried.labelled else None,
        accuracy_from_exact=None if same else accuracy_between(exact, outcomes),
        loss_from_exact=loss_between(exact, outcomes, seed)
        if tried.labelled and not same
        else None,
        shift=residual_figure(residual),
        by_layer=tuple(residual.by_layer.get(name) for name in tried.layers),
    )
