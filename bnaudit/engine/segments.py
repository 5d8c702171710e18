"""Normalising by parts of a batch: ghost batches, and single examples.

A layer's input is cut into segments of consecutive rows, and each is normalised by statistics of
its own in one call, so that small segments cost no more than large ones. It works for any module
that normalises by `running_mean` and `running_var`: the input is normalised beforehand, and the
module, whose statistics are 0 and 1 for the moment, has nothing left but its γ, β and whatever it
does besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.state import statistics
from bnaudit.nn.example_weighing import example_weighed
from bnaudit.stats.kernels import accumulation_dtype


class GhostBatches:
    """Handler for `intercepted`: each `size` consecutive samples are normalised by themselves.

    "Mini-batch statistics at size B" inside batches that hold several mini-batches (Ghost Batch
    Normalization, Hoffer et al. 2017; the normalisation batch size of Wu & Johnson 2021, section
    4). `start(samples)` says how many samples the next forward gets: a multiple of `size`. A layer
    that would get a single value per channel, or whose rows do not fall into as many equal
    segments, keeps its estimates and is listed in `kept`.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: set[str] = set()
        self._segments = 1

    def start(self, samples: int) -> None:
        """The next forward has so many samples."""
        self._segments = samples // self.size

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run the layer with every segment's own moments."""
        if x.numel() == 0:
            return forward(x)
        values = channels_first(layer, x)
        rows, segments = values.shape[0], self._segments
        if rows % segments or values.numel() // (values.shape[1] * segments) < 2:
            self.kept.add(layer.name)
            return forward(x)
        mean, var = segment_moments(values, segments)
        return normalised(layer, forward, x, mean, var)


class WeighedExamples:
    """Handler for `intercepted`: inference example weighing with weight `alpha`.

    Every example's own moments are mixed into the estimates (Summers & Dinneen 2020, "inference
    example weighing"; `nn.example_weighing` has the formula). An example is a row of the layer's
    input, as for the module that `nn.convert` puts there: of a video model's frames, each one.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def start(self, samples: int) -> None:
        """How many samples there are does not matter."""

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run the layer with the mixed moments of each example."""
        if x.numel() == 0 or self.alpha == 0:
            return forward(x)
        values = channels_first(layer, x)
        mean, var = segment_moments(values, values.shape[0])
        m, v = (t.detach().to(mean.dtype) for t in layer.estimated)
        return normalised(layer, forward, x, *example_weighed(mean, var, m, v, self.alpha))


def segment_moments(values: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of equal segments of rows: (N, C, *) -> (S, C) each.

    In at least float32, about the segment's mean.
    """
    cut = values.unflatten(0, (segments, -1))
    dims = [1, *range(3, cut.dim())]
    with torch.autocast(values.device.type, enabled=False):
        wide = cut.to(accumulation_dtype(values.dtype))
        var, mean = torch.var_mean(wide, dims, correction=0)
    return mean, var


def normalised(
    layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor, mean: Tensor, var: Tensor
) -> Any:
    """The layer's output where each of S segments of rows has statistics of its own.

    `mean`, `var`: (S, C). The layer is given (x − mean)/√(var + ε)·√(1 + ε) and, for this call,
    the statistics 0 and 1: it computes γ·(x − mean)/√(var + ε) + β, and what it does besides.
    """
    eps = layer.eps or 0.0
    with torch.autocast(x.device.type, enabled=False):
        values = channels_first(layer, x)
        cut = values.unflatten(0, (len(mean), -1)).to(mean.dtype)
        shape = (len(mean), 1, mean.shape[1], *(1,) * (cut.dim() - 3))
        scale = ((1 + eps) / (var + eps)).sqrt()
        white = (cut - mean.view(shape)) * scale.view(shape)
        white = like_input(layer, white.flatten(0, 1).to(x.dtype), x)
    with statistics(layer, torch.zeros_like(mean[0]), torch.ones_like(var[0])):
        return forward(white)


def like_input(layer: BNLayer, values: Tensor, x: Tensor) -> Tensor:
    """The inverse of `channels_first`: values (N, C, *) in the shape and layout of the input."""
    if layer.channel_axis != 1:
        values = values.movedim(1, layer.channel_axis)
    return values.reshape(x.shape)
