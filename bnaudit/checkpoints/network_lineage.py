"""What happened between two checkpoints to all tensors together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from bnaudit.checkpoints.contents import Contents
from bnaudit.checkpoints.differences import SharesOfParents, distinct_share, is_floating
from bnaudit.checkpoints.file_tensor import FileTensor
from bnaudit.checkpoints.mixtures import CLOSE_FIT
from bnaudit.checkpoints.parents import Checkpoint, Parent
from bnaudit.checkpoints.prefixes import is_averaged
from bnaudit.checkpoints.segments import weight_names
from bnaudit.results.lineage import NetworkLineage, WeightChange
from bnaudit.results.state import State

RECORD = ".bnaudit.json"
"""What the name of a sidecar ends in; `checkpoints.sidecar`, which knows it, needs torch."""


def network_lineage(
    child: Checkpoint,
    tensors: Mapping[str, FileTensor],
    parents: Sequence[Parent],
    nearest: int,
    weights: WeightChange,
    ordered: bool,
) -> NetworkLineage:
    """What is to be said of all tensors; `weights`: their change since the nearest parent."""
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
    child: State, tensors: Mapping[str, FileTensor], parents: Sequence[Parent]
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


def _averaged(child: Checkpoint, parent: Parent) -> tuple[str, ...]:
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
