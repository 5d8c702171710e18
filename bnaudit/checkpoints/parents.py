"""A checkpoint that another comes from, under the names of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bnaudit.checkpoints.contents import Contents
from bnaudit.checkpoints.file_tensor import FileTensor
from bnaudit.checkpoints.messages import input_error
from bnaudit.checkpoints.prefixes import find_renaming, is_averaged
from bnaudit.checkpoints.pruning import with_masks_applied
from bnaudit.checkpoints.segments import STATISTICS, member
from bnaudit.results.state import LayerState, State


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file and the BatchNorm layers in it."""

    contents: Contents
    state: State


@dataclass(frozen=True, eq=False)
class Parent:
    """A parent whose tensors and layers go by the child's names.

    `averaged`: whether the names that were changed speak of averaged weights.
    """

    state: State
    tensors: Mapping[str, FileTensor]
    layers: Mapping[str, LayerState]
    averaged: bool


def renamed(parent: Checkpoint, child: Mapping[str, FileTensor], contents: Contents) -> Parent:
    """The parent under the names of the `child`'s tensors, which `contents` are of.

    Names are kept, or change their prefix. Raises `InputError` where no tensor is in both.
    """
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
    return Parent(parent.state, named, layers, averaged=is_averaged(renaming.added))
