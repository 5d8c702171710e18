"""What happened between two checkpoints: both files, compared tensor by tensor, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnaudit.checkpoints.contents import Contents
from bnaudit.checkpoints.differences import (
    SharesOfParents,
    change,
    distinct_share,
    is_floating,
    rounding,
    together,
)
from bnaudit.checkpoints.file_tensor import FileTensor
from bnaudit.checkpoints.messages import input_error
from bnaudit.checkpoints.mixtures import CLOSE_FIT, mixture_of
from bnaudit.checkpoints.prefixes import find_renaming, is_averaged
from bnaudit.checkpoints.pruning import with_masks_applied
from bnaudit.checkpoints.segments import (
    STATISTICS,
    Segments,
    by_name,
    by_order,
    in_order_of_network,
    member,
    weight_names,
)
from bnaudit.results.lineage import (
    Distance,
    LayerLineage,
    Lineage,
    NetworkLineage,
    Statistics,
    WeightChange,
)
from bnaudit.results.state import LayerState, State
from bnaudit.stats.distance import root_mean, squared_distance

RECORD = ".bnaudit.json"
"""What the name of a sidecar ends in; `checkpoints.sidecar`, which knows it, needs torch."""

_UNCHANGED = WeightChange()


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file and the BatchNorm layers in it."""

    contents: Contents
    state: State


@dataclass(frozen=True, eq=False)
class _Parent:
    """A parent whose tensors and layers go by the child's names."""

    state: State
    tensors: Mapping[str, FileTensor]
    layers: Mapping[str, LayerState]
    averaged: bool  # the names that were changed speak of averaged weights


def compare(child: Checkpoint, parents: Sequence[Checkpoint]) -> Lineage:
    """The lineage of `child`, which comes from `parents`, one or more of them.

    Names are matched as they are, or after one change of prefix. Weights are read in pieces, so
    that files larger than the memory can be compared. Raises `InputError` where a parent has no
    tensor in common with the child.
    """
    tensors = with_masks_applied(child.contents.tensors)
    renamed = [_renamed(parent, tensors, child.contents) for parent in parents]
    names = [layer.name for layer in child.state.layers]
    changes = [_changes(tensors, parent.tensors, names) for parent in renamed]
    nearest = _nearest(child.state, renamed, changes)
    parent = renamed[nearest]
    segments = _segments(tensors, parent, names)
    return Lineage(
        child=child.state,
        parents=tuple(parent.state for parent in parents),
        nearest=nearest,
        layers=_layers(child.state, renamed, nearest, segments, changes[nearest]),
        network=_network(
            child, tensors, renamed, nearest, together(changes[nearest].values()), segments.ordered
        ),
        added=tuple(name for name in names if name not in parent.layers),
        removed=tuple(name for name in parent.layers if name not in names),
        resized=tuple(
            layer.name
            for layer in child.state.layers
            if layer.name in parent.layers and layer.channels != parent.layers[layer.name].channels
        ),
    )


def _renamed(parent: Checkpoint, child: Mapping[str, FileTensor], contents: Contents) -> _Parent:
    tensors = with_masks_applied(parent.contents.tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    wanted = {name: tensor.shape for name, tensor in child.items()}
    renaming = find_renaming(shapes, wanted)
    named = {renaming.of(name): tensor for name, tensor in tensors.items()}
    if not any(named[name].shape == shape for name, shape in wanted.items() if name in named):
        raise input_error(
            contents.path,
            f"no tensor of it is in {parent.contents.path}, by name and shape; give --against a "
            "checkpoint of the same network",
        )
    layers = {}
    for layer in parent.state.layers:
        name = renaming.of(member(layer.name, STATISTICS[0])).removesuffix(STATISTICS[0])
        layers[name.removesuffix(".")] = layer
    return _Parent(parent.state, named, layers, averaged=is_averaged(renaming.added))


def _changes(
    child: Mapping[str, FileTensor], parent: Mapping[str, FileTensor], layers: Sequence[str]
) -> dict[str, WeightChange]:
    """The change of every weight and of every gamma and beta, by name."""
    affine = [member(layer, what) for layer in layers for what in ("weight", "bias")]
    names = [*weight_names(child, layers), *(name for name in affine if name in child)]
    return {
        name: change(child[name], parent[name]) if name in parent else WeightChange(unmatched=1)
        for name in names
    }


def _nearest(
    child: State, parents: Sequence[_Parent], changes: Sequence[Mapping[str, WeightChange]]
) -> int:
    """The parent with most of the child's statistics, then the one of the nearest weights."""

    def rank(i: int) -> tuple[int, float]:
        same = sum(
            _statistics(layer, parents[i].layers[layer.name]) != "moved"
            for layer in child.layers
            if layer.name in parents[i].layers
        )
        return -same, together(changes[i].values()).relative

    return min(range(len(parents)), key=rank)


def _segments(child: Mapping[str, FileTensor], parent: _Parent, names: Sequence[str]) -> Segments:
    """By the order of whichever file has one, for safetensors keeps none; else by names."""
    if in_order_of_network(child):
        return by_order(child, names)
    if in_order_of_network(parent.tensors):
        return by_order(parent.tensors, list(parent.layers))
    return by_name(child, names)


def _layers(
    child: State,
    parents: Sequence[_Parent],
    nearest: int,
    segments: Segments,
    changes: Mapping[str, WeightChange],
) -> tuple[LayerLineage, ...]:
    """The layers that both have, with as many channels."""
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
            lineages[name] = LayerLineage(
                name=name,
                parent_name=before.name,
                channels=layer.channels,
                statistics=_statistics(layer, before),
                reset=_as_new(layer) and not _as_new(before),
                distance=_distance(layer, before),
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


def _statistics(after: LayerState, before: LayerState) -> Statistics:
    pairs = [(after.running_mean, before.running_mean), (after.running_var, before.running_var)]
    if after.channels != before.channels:
        return "moved"
    if all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
        return "equal"
    roundings = {rounding(a, b) for a, b in pairs if not np.array_equal(a, b, equal_nan=True)}
    return "rounded" if len(roundings) == 1 and None not in roundings else "moved"


def _as_new(layer: LayerState) -> bool:
    return bool((layer.running_mean == 0).all() and (layer.running_var == 1).all())


def _distance(after: LayerState, before: LayerState) -> Distance:
    if _statistics(after, before) == "equal":
        return Distance(0.0, 0.0, 0.0, 0.0)
    mean_part, scale_part = squared_distance(
        before.running_mean, before.running_var, after.running_mean, after.running_var, after.eps
    )
    gamma = None if after.gamma is None else after.gamma**2
    return Distance(
        total=root_mean(mean_part + scale_part),
        mean_part=root_mean(mean_part),
        scale_part=root_mean(scale_part),
        output=root_mean(mean_part + scale_part, gamma),
    )


def _network(
    child: Checkpoint,
    tensors: Mapping[str, FileTensor],
    parents: Sequence[_Parent],
    nearest: int,
    weights: WeightChange,
    ordered: bool,
) -> NetworkLineage:
    before = parents[nearest].tensors
    both = [name for name in tensors if name in before]
    fitting = [name for name in both if tensors[name].shape == before[name].shape]
    # Floats of the parent: the child's may be the integers of a quantised weight.
    floats = [name for name in fitting if is_floating(before[name].dtype)]
    changed = weights.changed > 0
    return NetworkLineage(
        weights=weights,
        added=tuple(name for name in tensors if name not in before),
        removed=tuple(name for name in before if name not in tensors),
        reshaped=tuple(name for name in both if tensors[name].shape != before[name].shape),
        retyped=tuple(name for name in both if tensors[name].dtype != before[name].dtype),
        shares=_shares(child.state, tensors, parents),
        distinct_before=_distinct([before[name] for name in floats]) if changed else None,
        distinct_after=_distinct([tensors[name] for name in floats]) if changed else None,
        averaged=_averaged(child, parents[nearest]),
        recalibrated=_recalibrated(child.contents),
        ordered=ordered,
    )


def _shares(
    child: State, tensors: Mapping[str, FileTensor], parents: Sequence[_Parent]
) -> tuple[float, ...] | None:
    """The parents' shares in the weights, where those are a mixture of several parents."""
    if len(parents) == 1:
        return None
    fit = SharesOfParents(len(parents))
    for name in weight_names(tensors, [layer.name for layer in child.layers]):
        of_parents = [parent.tensors[name] for parent in parents if name in parent.tensors]
        shapes = {tensor.shape for tensor in (tensors[name], *of_parents)}
        if len(of_parents) == len(parents) and len(shapes) == 1:
            fit.add(tensors[name], of_parents)
    shares, left = fit.shares()
    return shares if left <= CLOSE_FIT else None


def _distinct(tensors: Sequence[FileTensor]) -> float | None:
    counts = [counted for tensor in tensors if (counted := distinct_share(tensor)) is not None]
    values = sum(count[0] for count in counts)
    return sum(count[1] for count in counts) / values if values else None


def _recalibrated(child: Contents) -> bool:
    """Whether the record that bnaudit leaves beside what it writes is there, and of this file."""
    try:
        text = child.path.with_name(child.path.name + RECORD).read_text(encoding="utf-8")
        target = json.loads(text)["target"]
        return bool(target["name"] == child.path.name and target["bytes"] == child.bytes)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _averaged(child: Checkpoint, parent: _Parent) -> tuple[str, ...]:
    """What speaks of averaged weights, in words."""
    hints = []
    for name, tensor in child.contents.tensors.items():
        if name.rpartition(".")[2] == "n_averaged" and np.prod(tensor.shape) == 1:
            hints.append(f"{name} = {float(tensor.values().reshape(-1)[0]):g}")
    counts = [layer.num_batches_tracked for layer in child.state.layers]
    if any(count is not None and not float(count).is_integer() for count in counts):
        hints.append("counts that are not integers")
    if is_averaged(child.contents.key):
        hints.append(f"the key {child.contents.key}")
    elif parent.averaged:
        hints.append("the names of its tensors")
    return tuple(hints)
