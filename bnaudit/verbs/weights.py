"""What a checkpoint file had for a model that was loaded from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bnaudit.results.state import LayerState, State

OF_A_LAYER = ("running_mean", "running_var", "num_batches_tracked", "weight", "bias")


@dataclass(frozen=True)
class Weights:
    """Where in its file the model's tensors are: `names` gives each one's name in the state dict
    at `key`, `dtypes` its type there.

    `stored`: the BatchNorm layers as the file has them, under its own names; None where they cannot
    be told without loading it.
    """

    names: Mapping[str, str]
    key: str
    dtypes: Mapping[str, torch.dtype]
    stored: State | None = None

    def stored_layer(self, layer: str) -> LayerState | None:
        """The layer of the model that is called `layer`, as the file has it; None: not known."""
        if self.stored is None:
            return None
        name = self.name_in_file(layer, "running_var")
        return next((one for one in self.stored.layers if one.name == name), None)

    def place_in_file(self, layer: str, leaf: str) -> str | None:
        """The name of a layer's tensor in the file, or the one that it would have beside the
        layer's others there; None where the file has nothing of the layer."""
        own = self.names.get(f"{layer}.{leaf}")
        if own is not None:
            return own
        named = (self.name_in_file(layer, other) for other in OF_A_LAYER)
        prefix = next((name for name in named if name is not None), None)
        return None if prefix is None else f"{prefix}.{leaf}".lstrip(".")

    def name_in_file(self, layer: str, leaf: str) -> str | None:
        """What the file calls the layer whose tensor `leaf` was loaded into `layer`."""
        own = self.names.get(f"{layer}.{leaf}")
        return None if own is None else own.removesuffix(leaf).removesuffix(".")


def dtypes_in_file(weights: Weights | None) -> dict[str, torch.dtype]:
    """The dtype of each layer's statistics in the file, by the layer's name; empty without one."""
    dtypes = weights.dtypes if weights is not None else {}
    ending = ".running_var"
    return {n.removesuffix(ending): d for n, d in dtypes.items() if n.endswith(ending)}


def by_name_in_file(
    statistics: Iterable[tuple[tuple[str, ...], tuple[Tensor, Tensor]]], weights: Weights
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """New buffers by their names in the file, and a note for the reader where some have none.

    `statistics`: the names of each layer, its own first, with mean and variance: they go under
    every name that the file has. What it lost of a layer's statistics is put beside the rest.
    """
    values: dict[str, Tensor] = {}
    absent = []
    for names, (mean, var) in statistics:
        found = {
            place: value
            for name in names
            for leaf, value in (("running_mean", mean), ("running_var", var))
            if (place := weights.place_in_file(name, leaf)) is not None
        }
        values |= found
        if not found:
            absent.append(names[0])
    if not absent:
        return values, ()
    more = f" and {len(absent) - 6} more" if len(absent) > 6 else ""
    named = ", ".join(absent[:6])
    return values, (f"not from the checkpoint, so not in the copy either: {named}{more}",)
