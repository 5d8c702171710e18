"""What the search for the layers that matter keeps of the outputs."""

from __future__ import annotations

import gc
import weakref

import torch
from alone import NO_TRIALS
from tiny_models import with_wrong_statistics
from torch import Tensor, nn

import bnaudit
from bnaudit.verbs.few_layers import SEARCH_SAMPLES

BATCH = 8


class Tracked(nn.Module):
    """Knows how many of its outputs, and of those of the forwards before, are alive at most."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(6))
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(6))
        self.head = nn.Linear(4, 4)
        self.outputs: list[weakref.ref[Tensor]] = []
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, convolution in zip(self.norms, self.convs, strict=True):
            x = torch.relu(convolution(norm(x)))
        y = self.head(x.mean((2, 3)))
        self.outputs = [one for one in self.outputs if one() is not None]
        self.outputs.append(weakref.ref(y))
        self.most = max(self.most, len(self.outputs))
        return y


def test_the_search_keeps_the_outputs_of_the_full_correction_alone() -> None:
    """Of each of its batches one output; those of every step are compared as they come."""
    torch.manual_seed(0)
    model = with_wrong_statistics(Tracked())
    data = torch.rand(256, 3, 8, 8)
    audit = bnaudit.measure(model, data.split(BATCH), policy=NO_TRIALS)
    assert audit.attribution.search_samples == SEARCH_SAMPLES
    assert audit.attribution.layers_that_matter
    gc.collect()
    assert SEARCH_SAMPLES // BATCH <= model.most <= SEARCH_SAMPLES // BATCH + 4


def test_a_recalibration_keeps_no_outputs() -> None:
    torch.manual_seed(0)
    model = with_wrong_statistics(Tracked())
    bnaudit.recalibrate(model, torch.rand(96, 3, 8, 8).split(BATCH))
    assert model.most <= 4
