"""Moments of runs of rows by NumPy in float64, and inputs to try them on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

SHAPES = {
    "2-D": (96, 5),
    "3-D": (96, 5, 33),
    "4-D": (96, 5, 9, 11),
    "5-D": (96, 5, 3, 4, 5),
}

BOUNDS = {
    "one run": (0, 96),
    "equal runs": tuple(range(0, 97, 6)),
    "runs of 5 and 6, a shorter one at the end": (*range(0, 30, 5), *range(30, 96, 6), 93, 96),
    "no two alike": (0, 1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 66, 78, 91, 96),
    "every row by itself": tuple(range(97)),
}


def skewed(shape: Sequence[int], offset: float = 3.0, seed: int = 0) -> Tensor:
    """Skewed values; channel c has standard deviation 10^(c − 2) and lies `offset` from zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    x = x + 0.3 * x.square()
    c = torch.arange(shape[1]).view(1, -1, *[1] * (len(shape) - 2))
    return (x + offset) * 10.0 ** (c - 2)


def channels_innermost(x: Tensor) -> Tensor:
    """The same values with the channels last in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def errors(x: Tensor, bounds: Sequence[int], mean: Tensor, m2: Tensor) -> tuple[float, float]:
    """(largest error of a mean in standard deviations, of a variance relative); a run without a
    spread counts by its channel's."""
    values = x.double().cpu().numpy()
    axes = (0, *range(2, values.ndim))
    spread = values.var(axes)
    of_mean = of_var = 0.0
    for i, (start, stop) in enumerate(pairwise(bounds)):
        run = values[start:stop]
        var = run.var(axes)
        scale = np.where(var > 0, var, spread)
        count = run.size // run.shape[1]
        off = mean[i].double().cpu().numpy() - run.mean(axes)
        of_mean = max(of_mean, float((np.abs(off) / np.sqrt(scale)).max()))
        off = m2[i].double().cpu().numpy() / count - var
        of_var = max(of_var, float((np.abs(off) / scale).max()))
    return of_mean, of_var
