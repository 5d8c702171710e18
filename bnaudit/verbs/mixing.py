"""From what a layer sees to the statistics that it gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.stats.shift import gamma_weighted_mean, mixed, squared_shift


def own_statistics(layers: Iterable[BNLayer]) -> dict[BNLayer, Statistics]:
    """A copy of what the layers normalise by now, in float64 on the CPU."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to("cpu", torch.float64, copy=True)

    return {
        layer: (copy(layer.estimated[0]), copy(layer.estimated[1]))
        for layer in layers
        if layer.role == "estimated"
    }


class MixingRule:
    """The new statistics of a layer: mixed with its own at the prior's strength, or not at all
    where its output shift against them is not above a threshold.

    `weight` is on the new ones; `stored`: the dtype in which a layer's statistics end up, where it
    is coarser than the model's, so that what is checked is what is kept. Whether a layer changes is
    decided when it is first asked for; `kept` has the reason of each one that does not.
    """

    def __init__(
        self,
        own: dict[BNLayer, Statistics],
        weight: float,
        above: float | None,
        stored: Mapping[str, torch.dtype],
    ) -> None:
        self._own, self._weight, self._above = own, weight, above
        self._stored = stored
        self._changes: set[BNLayer] = set()
        self.kept: dict[BNLayer, str] = {}

    def __call__(self, layer: BNLayer, mean: Tensor, var: Tensor) -> Statistics | None:
        """Statistics in float64."""
        new = mixed((mean, var), self._own[layer], self._weight)
        dtype = self._stored.get(layer.name, torch.float64)
        new = new[0].to(dtype).double(), new[1].to(dtype).double()
        if layer not in self._changes and layer not in self.kept:
            reason = self._reason(layer, mean, var)
            if not bool((new[0] + new[1]).isfinite().all()):
                reason = f"the new statistics are not finite as {str(dtype).removeprefix('torch.')}"
            if reason is None:
                self._changes.add(layer)
            else:
                self.kept[layer] = reason
        return None if layer in self.kept else new

    def forget(self) -> None:
        """All decisions, for another attempt."""
        self._changes.clear()
        self.kept.clear()

    def _reason(self, layer: BNLayer, mean: Tensor, var: Tensor) -> str | None:
        if self._above is None:
            return None
        squared = squared_shift(mean, var, *self._own[layer], layer.eps or 0.0).total
        shift = float(gamma_weighted_mean(squared, layer.gamma())) ** 0.5
        if bool(squared.isnan().any()) or shift > self._above:
            return None
        return "own output shift not above --above"  # also where γ = 0 in every channel
