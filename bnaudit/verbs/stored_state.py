"""What a model in memory stores in its BatchNorm layers, in the form that the rules judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer
from bnaudit.results.state import USUAL_EPS, Floats, LayerState, State


def state_of_model(layers: Sequence[BNLayer], source: str) -> State:
    """The state of these layers of a model: eps, momentum, tracking and kind are known here.

    Layers that normalise by the batch, which have no statistics, are named in
    `without_statistics`; those that are not audited (InstanceNorm, quantised) are left out. The
    arrays are copies. `source`: the checkpoint or the model, for the commands that findings give.
    """
    return State(
        source=source,
        layers=tuple(_layer_state(layer) for layer in layers if layer.role == "estimated"),
        without_statistics=tuple(x.name for x in layers if x.role == "batch-dependent"),
    )


def _layer_state(layer: BNLayer) -> LayerState:
    mean, variance = layer.estimated
    module = cast(Any, layer.module)
    tracks = getattr(module, "track_running_stats", None)
    return LayerState(
        name=layer.name,
        running_mean=_floats(mean),
        running_var=_floats(variance),
        gamma=_floats(layer.gamma()) if layer.affine else None,
        beta=_optional(getattr(module, "bias", None)),
        num_batches_tracked=_count(layer),
        dtype=str(variance.dtype).removeprefix("torch."),
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
