"""What a moving average of statistics starts from, and how fast it moves. In NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

USUAL_MOMENTUM = 0.1
"""PyTorch's default, assumed where nothing tells the momentum: no checkpoint stores it."""

USUAL_MOMENTA = (USUAL_MOMENTUM, 0.03, 0.01, 0.001)
"""PyTorch's, YOLO's, and those of networks ported from TensorFlow (.99, .999)."""


def is_initial(mean: Floats, var: Floats) -> bool:
    """Whether the mean is 0 and the variance 1 in every channel, exactly; (C,) each, C above 0."""
    return bool(len(mean) and (mean == 0).all() and (var == 1).all())
