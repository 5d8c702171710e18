"""Models that keep state of their own between layers are settled layer by layer, and told so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alone import recalibrate_alone
from population_oracle import conv, images, largest_difference, spoilt
from torch import Tensor, nn

ROUNDING = 3e-6


class Skipping(nn.Module):
    """`self.skip = x` ahead of a layer, read behind it; a middle of the test's choice."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem, self.first = conv(3, 4), nn.BatchNorm2d(4)
        self.middle = middle
        self.inner, self.norm = conv(4, 4), nn.BatchNorm2d(4)
        self.deep, self.last = conv(4, 4), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.skip = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.stem(x)))
        self.skip = x
        x = torch.relu(self.norm(self.inner(self.middle(x)))) + self.skip
        return self.head(self.last(self.deep(x)).mean((2, 3)))


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout2d(x, 0.5, training=True)


def build(middle: nn.Module) -> Any:
    torch.manual_seed(0)
    return spoilt(Skipping(middle))


MIDDLES: dict[str, Any] = {
    "nothing": nn.Identity,
    "a layer without running statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}


@pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES.keys())
def test_a_model_with_state_between_its_layers_is_done_again_layer_by_layer(middle: Any) -> None:
    x, said = images(32), []
    result = recalibrate_alone(build(middle()), x.split(8), say=said.append)
    assert (result.report.asked, result.report.method) == ("exact", "sequential")
    note = result.report.notes[-1]
    assert "keeps state of its own" in note
    assert "layer by layer instead" in note
    assert note in said
    assert result.report.residual < 1e-6
    expected = recalibrate_alone(build(middle()), x.split(8), method="sequential")
    assert largest_difference(result.statistics, expected.statistics) < ROUNDING


def test_batch_dependence_without_state_stays_exact() -> None:
    class Stateless(Skipping):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(self.stem(x)))
            x = torch.relu(self.norm(self.inner(self.middle(x)))) + x
            return self.head(self.last(self.deep(x)).mean((2, 3)))

    torch.manual_seed(0)
    model = spoilt(Stateless(nn.BatchNorm2d(4, track_running_stats=False)))
    report = recalibrate_alone(model, images(32).split(8)).report
    assert report.method == "exact"
    assert "without running statistics" in " ".join(report.batch_dependence)
    assert report.residual < 1e-6


def test_what_depends_on_chance_is_not_done_again() -> None:
    """Two runs of a stochastic model never agree: it says nothing about lockstep."""
    torch.manual_seed(0)

    class Stochastic(nn.Sequential):
        pass

    model = spoilt(
        Stochastic(conv(3, 4), nn.BatchNorm2d(4), AlwaysDropping(), conv(4, 4), nn.BatchNorm2d(4))
    )
    report = recalibrate_alone(model, images(32).split(8)).report
    assert report.method == "exact"
    assert "stochastic" in " ".join(report.batch_dependence)
