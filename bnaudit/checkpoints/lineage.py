"""What happened between two checkpoints: both files, compared tensor by tensor, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bnaudit.checkpoints.differences import change, together
from bnaudit.checkpoints.file_tensor import FileTensor
from bnaudit.checkpoints.layer_lineages import compared_statistics, layer_lineages
from bnaudit.checkpoints.network_lineage import network_lineage
from bnaudit.checkpoints.parents import Checkpoint, Parent, renamed
from bnaudit.checkpoints.pruning import with_masks_applied
from bnaudit.checkpoints.segments import (
    Segments,
    by_name,
    by_order,
    in_order_of_network,
    member,
    weight_names,
)
from bnaudit.results.lineage import Lineage, WeightChange
from bnaudit.results.state import State


def compare(child: Checkpoint, parents: Sequence[Checkpoint]) -> Lineage:
    """The lineage of `child`, which comes from `parents`, one or more of them.

    Names are matched as they are, or after one change of prefix. Weights are read in pieces, so
    that files larger than the memory can be compared. Raises `InputError` where a parent has no
    tensor in common with the child.
    """
    tensors = with_masks_applied(child.contents.tensors)
    known = [renamed(parent, tensors, child.contents) for parent in parents]
    names = [layer.name for layer in child.state.layers]
    changes = [_changes(tensors, parent.tensors, names) for parent in known]
    nearest = _nearest(child.state, known, changes)
    parent = known[nearest]
    segments = _segments(tensors, parent, names)
    return Lineage(
        child=child.state,
        parents=tuple(parent.state for parent in parents),
        keys=tuple(parent.contents.key for parent in parents),
        nearest=nearest,
        layers=layer_lineages(child.state, known, nearest, segments, changes[nearest]),
        network=network_lineage(
            child, tensors, known, nearest, together(changes[nearest].values()), segments.ordered
        ),
        added=tuple(name for name in names if name not in parent.layers),
        removed=tuple(name for name in parent.layers if name not in names),
        resized=tuple(
            layer.name
            for layer in child.state.layers
            if layer.name in parent.layers and layer.channels != parent.layers[layer.name].channels
        ),
    )


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
    child: State, parents: Sequence[Parent], changes: Sequence[Mapping[str, WeightChange]]
) -> int:
    """The parent with most of the child's statistics, then the one of the nearest weights."""

    def rank(i: int) -> tuple[int, float]:
        same = sum(
            compared_statistics(layer, parents[i].layers[layer.name]) != "moved"
            for layer in child.layers
            if layer.name in parents[i].layers
        )
        return -same, together(changes[i].values()).relative

    return min(range(len(parents)), key=rank)


def _segments(child: Mapping[str, FileTensor], parent: Parent, names: Sequence[str]) -> Segments:
    """By the order of whichever file has one, for safetensors keeps none; else by names."""
    if in_order_of_network(child):
        return by_order(child, names)
    if in_order_of_network(parent.tensors):
        return by_order(parent.tensors, list(parent.layers))
    return by_name(child, names)
