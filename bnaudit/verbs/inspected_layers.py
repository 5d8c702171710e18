"""A stored BatchNorm layer in figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnaudit.results.inspection import Histogram, InspectedLayer, Range
from bnaudit.results.state import Floats, LayerState

_WIDTH = 0.125
"""Of a bin: an eighth of a decade, or of a standard deviation."""

_LOG_VARIANCE = (-8.0, 4.0)
_DEVIATIONS = (-4.0, 4.0)


def inspected(layer: LayerState, multiple_of_eps: float) -> InspectedLayer:
    """The figures of a layer; `multiple_of_eps`: of BN012, below which a channel is dead."""
    mean, variance = layer.running_mean, layer.running_var
    stored = [x for x in (mean, variance, layer.gamma, layer.beta) if x is not None]
    scale = np.abs(layer.scale)
    scale = scale[np.isfinite(scale)]
    finite = np.isfinite(variance)
    with np.errstate(divide="ignore"):
        log_variance = np.log10(variance[finite & (variance >= 0)])
    usable = finite & np.isfinite(mean) & (variance > 0)
    deviations = mean[usable] / np.sqrt(variance[usable])
    return InspectedLayer(
        name=layer.name,
        channels=layer.channels,
        kind=layer.kind,
        dtype=layer.dtype,
        num_batches_tracked=layer.num_batches_tracked,
        eps=layer.eps,
        eps_known=layer.eps_known,
        momentum=layer.momentum,
        tracks=layer.tracks,
        running_mean=_range(mean),
        running_var=_range(variance),
        gamma=None if layer.gamma is None else _range(np.abs(layer.gamma)),
        largest_scale=float(scale.max()) if scale.size else None,
        dead=int(np.sum((variance >= 0) & (variance < multiple_of_eps * layer.eps))),
        non_finite=int(np.sum(~np.logical_and.reduce([np.isfinite(x) for x in stored]))),
        log_variance=_histogram(log_variance, *_LOG_VARIANCE),
        mean_in_deviations=_histogram(deviations, *_DEVIATIONS),
    )


def _range(values: Floats) -> Range | None:
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    return Range(float(values.min()), float(np.median(values)), float(values.max()))


def _histogram(values: NDArray[Any], low: float, high: float) -> Histogram:
    """Values beyond the ends, minus infinity included, count in the bins there."""
    if not values.size:
        return Histogram(0.0, _WIDTH, ())
    bins = np.clip(np.floor(values / _WIDTH), low / _WIDTH, high / _WIDTH - 1).astype(np.int64)
    first = int(bins.min())
    return Histogram(first * _WIDTH, _WIDTH, tuple(np.bincount(bins - first).tolist()))
