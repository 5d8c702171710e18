"""How far statistics lie from others, in NumPy: for what has to start without torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def squared_distance(
    mean: Floats, var: Floats, estimated_mean: Floats, estimated_var: Floats, eps: float
) -> tuple[Floats, Floats]:
    """The mean part and the scale part of d² in each channel, (C,) each; NaN where undefined.

    The formula of `stats.shift.squared_shift`, which says what it means, with any other statistics
    in place of the expected ones. A negative variance counts as 0 in `var`.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = np.sqrt(np.where(estimated_var + eps > 0, estimated_var + eps, np.nan))
        var = np.maximum(var, 0.0)
        normalised_std = np.where(var > 0, np.sqrt(var / np.maximum(var + eps, 1e-300)), 0.0)
        mean_part = ((mean - estimated_mean) / scale) ** 2
        scale_part = (np.sqrt(var) / scale - normalised_std) ** 2
        defined = np.isfinite(estimated_mean + scale + mean + var)
    return np.where(defined, mean_part, np.nan), np.where(defined, scale_part, np.nan)


def root_mean(squares: Floats, weight: Floats | None = None) -> float:
    """√(Σ weight·square / Σ weight) over defined channels; NaN where there is nothing to weigh."""
    weights = np.ones_like(squares) if weight is None else weight
    counted = np.isfinite(squares) & np.isfinite(weights)
    total = float(weights[counted].sum())
    if not total:
        return math.nan
    return math.sqrt(float((weights[counted] * squares[counted]).sum()) / total)
