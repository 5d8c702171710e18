"""The layer discrepancy at several mini-batch sizes, from one deployed pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.segments import segment_moments
from bnaudit.stats.shift import channel_mean, squared_shift


@dataclass
class _Sum:
    """The squared discrepancies of a layer's mini-batches of one size, added up."""

    total: float = 0.0
    mini_batches: int = 0


@dataclass
class DiscrepancyBySize:
    """Handler for `intercepted`: what mini-batches of each size would do to a layer's input.

    Every sample's own moments are taken once, and pooled to those of `size` consecutive samples
    for each of `sizes`: the mean over mini-batches of d², with a mini-batch's moments in place of
    (m, v). The layer itself runs as it is. Samples of a batch that fill no mini-batch are left out.
    A layer called several times in a forward: over all its calls. `start(samples)` as in
    `segments.GhostBatches`; `order` holds the names of the layers in the order of their calls.
    """

    sizes: Sequence[int]
    order: list[str] = field(default_factory=list)
    _sums: dict[tuple[str, int], _Sum] = field(default_factory=dict)
    _pending: list[tuple[str, int, Tensor, int]] = field(default_factory=list)
    _samples: int = 1

    def start(self, samples: int) -> None:
        """The next forward has so many samples."""
        self._samples = samples

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Look at the input, and return the layer's own output."""
        if x.numel() and layer.eps is not None:
            values = channels_first(layer, x)
            if values.shape[0] % self._samples == 0:
                if layer.name not in self.order:
                    self.order.append(layer.name)
                self._look(layer, values)
        return forward(x)

    def _look(self, layer: BNLayer, values: Tensor) -> None:
        mean, var = segment_moments(values, self._samples)
        wide = torch.float64 if mean.device.type != "mps" else torch.float32
        mean, var = mean.to(wide), var.to(wide)
        running_mean, running_var = (t.detach().to(wide) for t in layer.estimated)
        elements = values.numel() // (values.shape[1] * self._samples)
        for size in self.sizes:
            whole = self._samples - self._samples % size
            if not whole or elements * size < 2:
                continue
            m = mean[:whole].unflatten(0, (-1, size))
            v = var[:whole].unflatten(0, (-1, size))
            batch_mean = m.mean(1)
            # The law of total variance: every sample has as many elements.
            batch_var = v.mean(1) + (m - batch_mean[:, None]).square().mean(1)
            squared = squared_shift(
                batch_mean, batch_var, running_mean, running_var, layer.eps or 0.0
            ).total
            summed = channel_mean(squared).sum()
            self._pending.append((layer.name, size, summed, whole // size))

    def squared(self, name: str, size: int) -> float | None:
        """The layer's squared discrepancy at a size; None where it has none. Waits for the device.

        Biased mini-batch moments, as BatchNorm normalises by them in training.
        """
        self._settle()
        found = self._sums.get((name, size))
        return found.total / found.mini_batches if found is not None else None

    def _settle(self) -> None:
        for name, size, summed, mini_batches in self._pending:
            account = self._sums.setdefault((name, size), _Sum())
            account.total += float(summed)
            account.mini_batches += mini_batches
        self._pending.clear()
