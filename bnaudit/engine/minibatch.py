"""The mini-batch condition: BatchNorm layers normalise by the moments of the batch, nothing else
changes and no buffer is written (the model stays in `eval()`, so dropout stays off).

This is the train-mode forward that Wu & Johnson 2021 (arXiv:2105.07576, section 3) compare with
inference; SyncBatchNorm uses local moments, frozen layers keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.state import statistics
from bnaudit.engine.stopwatch import doing
from bnaudit.stats.kernels import Scratch, run_moments


class MiniBatchStatistics:
    """Handler for `intercepted`: each call normalises by the biased moments of its own input.

    A layer that gets a single value per channel keeps its estimates and is listed in `kept`.
    """

    def __init__(self) -> None:
        self.kept: set[str] = set()
        self._scratch = Scratch()

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run the layer with the batch's moments in place of its statistics."""
        if x.numel() == 0:
            return forward(x)
        values = channels_first(layer, x)
        count = values.numel() // values.shape[1]
        if count == 1:
            self.kept.add(layer.name)
            return forward(x)
        with doing("moments"):
            moments = run_moments(values, (0, values.shape[0]), self._scratch)
        with statistics(layer, moments.mean[0], moments.m2[0] / count):
            return forward(x)
