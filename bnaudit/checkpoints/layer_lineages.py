"""What happened to each BatchNorm layer between two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bnaudit.checkpoints.differences import rounding, together
from bnaudit.checkpoints.mixtures import mixture_of
from bnaudit.checkpoints.parents import Parent
from bnaudit.checkpoints.segments import Segments, member
from bnaudit.results.lineage import Distance, LayerLineage, Statistics, WeightChange
from bnaudit.results.state import Floats, LayerState, State
from bnaudit.stats.distance import root_mean, squared_distance
from bnaudit.stats.moving_average import is_initial

_UNCHANGED = WeightChange()
_NO_DISTANCE = Distance(0.0, 0.0, 0.0)


def layer_lineages(
    child: State,
    parents: Sequence[Parent],
    nearest: int,
    segments: Segments,
    changes: Mapping[str, WeightChange],
) -> tuple[LayerLineage, ...]:
    """The layers that the child and its nearest parent have, with as many channels.

    `changes`: of every weight, gamma and beta against that parent, by name.
    """
    parent = parents[nearest]
    by_layer = {layer.name: layer for layer in child.layers}
    upstream, largest = _UNCHANGED, 0.0
    lineages: dict[str, LayerLineage] = {}
    for name, own_names in segments.own.items():
        own = together(changes.get(one, WeightChange(unmatched=1)) for one in own_names)
        gamma, beta = (changes.get(member(name, x), _UNCHANGED) for x in ("weight", "bias"))
        upstream += own
        largest = max(largest, own.relative)
        layer, before = by_layer.get(name), parent.layers.get(name)
        if layer is not None and before is not None and layer.channels == before.channels:
            distance, output_distance = _distances(layer, before)
            lineages[name] = LayerLineage(
                name=name,
                parent_name=before.name,
                channels=layer.channels,
                statistics=compared_statistics(layer, before),
                reset=_as_new(layer) and not _as_new(before),
                distance=distance,
                output_distance=output_distance,
                own=own,
                gamma=gamma,
                beta=beta,
                upstream=upstream if segments.ordered else None,
                largest_upstream=largest if segments.ordered else None,
                n_before=before.num_batches_tracked,
                n_after=layer.num_batches_tracked,
                dtype_before=before.dtype,
                dtype_after=layer.dtype,
                mixture=mixture_of(layer, before, [x.layers.get(name) for x in parents]),
            )
        upstream += gamma + beta
        largest = max(largest, (gamma + beta).relative)
    return tuple(lineages[layer.name] for layer in child.layers if layer.name in lineages)


def compared_statistics(after: LayerState, before: LayerState) -> Statistics:
    """Whether statistics are equal, rounded to half precision, or others."""
    pairs = [(after.running_mean, before.running_mean), (after.running_var, before.running_var)]
    if after.channels != before.channels:
        return "moved"
    if all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
        return "equal"
    roundings = {rounding(a, b) for a, b in pairs if not np.array_equal(a, b, equal_nan=True)}
    return "rounded" if len(roundings) == 1 and None not in roundings else "moved"


def _as_new(layer: LayerState) -> bool:
    return is_initial(layer.running_mean, layer.running_var)


def _distances(after: LayerState, before: LayerState) -> tuple[Distance, Distance]:
    """Over all channels alike, and weighted by γ²."""
    if compared_statistics(after, before) == "equal":
        return _NO_DISTANCE, _NO_DISTANCE
    parts = squared_distance(
        before.running_mean, before.running_var, after.running_mean, after.running_var, after.eps
    )
    return _distance(parts, None), _distance(parts, _weight(after))


def _weight(layer: LayerState) -> Floats | None:
    """γ²; None where no channel has one above 0, for then it tells no channel from another."""
    weight = np.zeros(1) if layer.gamma is None else layer.gamma**2
    return weight if (np.isfinite(weight) & (weight > 0)).any() else None


def _distance(parts: tuple[Floats, Floats], weight: Floats | None) -> Distance:
    mean_part, scale_part = parts
    return Distance(
        total=root_mean(mean_part + scale_part, weight),
        mean_part=root_mean(mean_part, weight),
        scale_part=root_mean(scale_part, weight),
    )
