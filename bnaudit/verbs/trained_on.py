"""The same network on its training data: are the estimates wrong, or did the data move?"""

from __future__ import annotations

import math
from functools import reduce

from torch import Tensor

from bnaudit.engine.books import LayerRecord
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.passes import Measurement
from bnaudit.results import DataInfo, Estimate, TrainedOn, TrainedOnLayer
from bnaudit.stats.jackknife import Jackknife, jackknife
from bnaudit.stats.moments import Moments, leave_one_out, merge, pool, scatter
from bnaudit.stats.shift import gamma_weighted_mean, squared_shift
from bnaudit.verbs.figures import estimate_of, shift_estimates


def trained_on(
    layers: list[BNLayer],
    here: Measurement,
    here_groups: Tensor,
    there: Measurement,
    there_groups: Tensor,
    data: DataInfo,
) -> TrainedOn:
    """What the layers see on the training data (`there`), and how far the data moved from there.

    `…_groups`: into which jackknife group each group used while reading is pooled.
    """
    found = []
    for layer in layers:
        one, other = here.records.get(layer.name), there.records.get(layer.name)
        if layer.eps is None or one is None or other is None or not (one.sites and other.sites):
            continue
        seen, trained = _groups(one, here_groups), _groups(other, there_groups)
        _, shift, _ = shift_estimates(trained, one.estimated, layer.eps, layer.gamma())
        if shift is not None:
            moved = moved_shift(seen, trained, layer.eps, layer.gamma())
            found.append(TrainedOnLayer(layer.name, shift, moved))
    return TrainedOn(data, tuple(found), there.network.deployed)


def _groups(record: LayerRecord, final: Tensor) -> Moments:
    parts = int(final.max()) + 1
    groups = reduce(merge, (scatter(site.groups, final, parts) for site in record.sites))
    return groups.select(groups.count > 0)


def moved_shift(seen: Moments, trained: Moments, eps: float, gamma: Tensor) -> Estimate | None:
    """The output shift that statistics exact on `trained` have on `seen`, both by groups.

    Two independent sets of samples: bias and variance of the squared figure are the sums of those
    of two jackknives, one over the groups of each set with the other as it is; Student's t with the
    degrees of freedom of the smaller set. None where γ is 0 everywhere, or no channel is defined.
    """

    def squared(of: Moments, on: Moments) -> Tensor:
        shift = squared_shift(of.mean, of.var, on.mean, on.var, eps).total
        return gamma_weighted_mean(shift, gamma)

    all_seen, all_trained = pool(seen), pool(trained)
    plain = float(squared(all_seen, all_trained))
    if not math.isfinite(plain):
        return None
    if min(len(seen.count), len(trained.count)) < 2:
        return estimate_of(plain, None)
    over_seen = jackknife(plain, squared(leave_one_out(seen), all_trained), seen.count)
    over_trained = jackknife(plain, squared(all_seen, leave_one_out(trained)), trained.count)
    if over_seen is None or over_trained is None:
        return estimate_of(plain, None)
    both = Jackknife(
        plain,
        over_seen.bias + over_trained.bias,
        math.hypot(over_seen.standard_error, over_trained.standard_error),
        min(over_seen.groups, over_trained.groups),
    )
    return estimate_of(plain, both)
