"""Own and inherited shift: what a layer's estimates get wrong, and what comes from upstream."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from bnaudit.engine.books import LayerRecord
from bnaudit.engine.population import Population
from bnaudit.results import Estimate
from bnaudit.stats.moments import merge, pool
from bnaudit.stats.shift import channel_mean, inherited_shift, squared_shift
from bnaudit.verbs.figures import shift_estimates


@dataclass(frozen=True)
class OwnAndInherited:
    """The parts of a layer's shift on one set of samples; `total` is the plain ESM on it."""

    total: float
    own: Estimate
    own_output: Estimate | None
    inherited: float


def own_and_inherited(record: LayerRecord, corrected: Population) -> OwnAndInherited | None:
    """From what a layer saw deployed (`record`) and in the corrected condition, same samples.

    The own shift's interval is conditional on the statistics upstream, which come from these same
    samples. None where no channel is defined.
    """
    eps, gamma = record.layer.eps, record.layer.gamma()
    groups = corrected.groups.select(corrected.groups.count > 0)
    if eps is None or not len(groups.count) or not record.sites:
        return None
    deployed = pool(reduce(merge, [site.groups for site in record.sites]))
    mean, var = deployed.mean[0], deployed.var[0]
    squared = squared_shift(mean, var, *record.estimated, eps).total
    if bool(squared.isnan().all()):
        return None
    own, own_output, _ = shift_estimates(groups, record.estimated, eps, gamma)
    expected = pool(groups)
    return OwnAndInherited(
        total=float(channel_mean(squared)) ** 0.5,
        own=own,
        own_output=own_output,
        inherited=inherited_shift(
            (mean, var), (expected.mean[0], expected.var[0]), record.estimated[1], eps
        ),
    )
