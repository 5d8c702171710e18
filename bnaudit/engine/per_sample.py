"""What layers see of single samples: their moments with and without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.batches import Batch
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.state import intercepted
from bnaudit.stats.moments import GroupedMoments, Moments

Handler = Callable[[BNLayer, Batch, Tensor], None]


def show_inputs(
    subject: Subject, layers: Sequence[BNLayer], batches: Sequence[Batch], look: Handler
) -> None:
    """Run the batches in the deployed condition; `look` sees the first input of each layer.

    `layers` have been verified. Inside `conditions.entered(model)`.
    """
    for batch in batches:
        with intercepted(layers, _FirstInputs(batch, look)):
            subject.forward(batch)


class _FirstInputs:
    """Shows the first input of each layer in a forward, and runs the layer as it is."""

    def __init__(self, batch: Batch, look: Handler) -> None:
        self._batch, self._look = batch, look
        self._seen: set[str] = set()

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        if layer.name not in self._seen and isinstance(x, Tensor) and x.numel():
            self._seen.add(layer.name)
            self._look(layer, self._batch, channels_first(layer, x))
        return forward(x)


@dataclass
class PaddedMoments:
    """Moments of a layer's input with and without the padding at the end of sequences.

    For layers over (N, C, L). A sequence's padding is the longest run of equal positions at its
    end, of at least `LEAST` of them; the last ones may differ, for convolutions see the border.
    """

    groups: int
    all_positions: dict[str, GroupedMoments] = field(default_factory=dict)
    without: dict[str, GroupedMoments] = field(default_factory=dict)
    padded: dict[str, list[Tensor]] = field(default_factory=dict)

    def __call__(self, layer: BNLayer, batch: Batch, x: Tensor) -> None:
        """One batch's input of a layer."""
        if x.dim() != 3 or x.shape[0] != batch.size or x.shape[2] <= LEAST + BORDER:
            return
        values = x.to("cpu").double()
        kept = ~padding(values)
        self.padded.setdefault(layer.name, []).append((~kept).double().mean(1))
        everything = torch.ones_like(kept)
        for accounts, mask in ((self.all_positions, everything), (self.without, kept)):
            account = accounts.setdefault(layer.name, GroupedMoments(self.groups, values.shape[1]))
            account.add(_moments(values, mask), batch.groups)


LEAST = 3
"""A shorter run of equal positions may be anything."""

BORDER = 3
"""So many positions at the very end may differ: a convolution of width 7 sees the border there."""


def padding(x: Tensor) -> Tensor:
    """Which positions of sequences are padding at their end: (N, C, L) -> (N, L), on the CPU."""
    length = x.shape[2]
    best = torch.zeros(x.shape[0], length, dtype=torch.bool, device="cpu")
    for border in range(BORDER + 1):
        reference = x[:, :, length - 1 - border : length - border]
        tolerance = 1e-6 * (1 + reference.abs())
        same = ((x - reference).abs() <= tolerance).all(1)[:, : length - border]
        run = same.flip(1).cumprod(1).sum(1)
        start = length - border - run
        found = (torch.arange(length, device="cpu") >= start[:, None]) & (run >= LEAST)[:, None]
        best = torch.where((found.sum(1) > best.sum(1))[:, None], found, best)
    # A sequence that is padding from end to end is a constant one, not a padded one.
    return best & ~best.all(1, keepdim=True)


def _moments(values: Tensor, mask: Tensor) -> Moments:
    """The moments of each sample's unmasked positions, as parts: (N,), (N, C), (N, C)."""
    weight = mask.double()[:, None]
    count = weight.sum(2)
    mean = (values * weight).sum(2) / count.clamp(min=1)
    m2 = ((values - mean[..., None]).square() * weight).sum(2)
    return Moments(count[:, 0], mean, m2)
