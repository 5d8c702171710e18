"""What a model in memory stores in its BatchNorm layers, in the form that the rules judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer
from bnaudit.results.state import USUAL_EPS, Floats, Incomplete, LayerState, State
from bnaudit.verbs.weights import Weights

HALVES = ("float16", "bfloat16")


def state_of_model(layers: Sequence[BNLayer], source: str, weights: Weights | None = None) -> State:
    """The state of these layers of a model: eps, momentum, tracking and kind are known here.

    Layers that normalise by the batch, which have no statistics, are named in
    `without_statistics`; those that are not audited (InstanceNorm, quantised) are left out. The
    arrays are copies. `source`: the checkpoint or the model, for the commands that findings give.
    `weights`: what a checkpoint had for the model. A model in float32 does not show that its file
    is in half precision, nor its counters that the file has none, or fractions.
    """
    estimated = [layer for layer in layers if layer.role == "estimated"]
    file = weights.stored if weights is not None else None
    return State(
        source=source,
        layers=tuple(_layer_state(layer, weights) for layer in estimated),
        without_statistics=tuple(x.name for x in layers if x.role == "batch-dependent"),
        incomplete=tuple(_incomplete(estimated, weights)) if weights is not None else (),
        steps=file.steps if file is not None else None,
        averaged=file.averaged if file is not None else None,
    )


def _incomplete(layers: Sequence[BNLayer], weights: Weights) -> Iterator[Incomplete]:
    """The layers of which the file has a part, by their names in the model."""
    partly = weights.stored.incomplete if weights.stored is not None else ()
    only = {one.name: one.only for one in partly}
    for layer in layers:
        for leaf in ("running_mean", "running_var", "num_batches_tracked"):
            name = weights.name_in_file(layer.name, leaf)
            if name is not None and only.get(name) == leaf:
                yield Incomplete(layer.name, leaf)


def _layer_state(layer: BNLayer, weights: Weights | None) -> LayerState:
    mean, variance = layer.estimated
    module = cast(Any, layer.module)
    tracks = getattr(module, "track_running_stats", None)
    stored = weights.stored_layer(layer.name) if weights is not None else None
    dtype = str(variance.dtype).removeprefix("torch.")
    return LayerState(
        name=layer.name,
        running_mean=_floats(mean),
        running_var=_floats(variance),
        gamma=_floats(layer.gamma()) if layer.affine else None,
        # Channels that share their statistics have no β in common.
        beta=_optional(getattr(module, "bias", None)) if layer.pooled == 1 else None,
        num_batches_tracked=_count(layer) if stored is None else stored.num_batches_tracked,
        # Whichever of file and model is the coarser has rounded the values.
        dtype=dtype if stored is None or dtype in HALVES else stored.dtype,
        eps=USUAL_EPS if layer.eps is None else layer.eps,
        eps_known=layer.eps is not None,
        momentum=layer.momentum,
        tracks=tracks if isinstance(tracks, bool) else None,
        kind=layer.kind,
    )


def _count(layer: BNLayer) -> float | None:
    """As stored: not an integer where averaged weights were assigned to the model."""
    value = layer.module._buffers.get("num_batches_tracked")
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else None


def _optional(tensor: object) -> Floats | None:
    return _floats(tensor) if isinstance(tensor, Tensor) else None


def _floats(tensor: Tensor) -> Floats:
    values = tensor.detach().to("cpu", torch.float64).flatten()
    return np.array(values.numpy(), dtype=np.float64)
