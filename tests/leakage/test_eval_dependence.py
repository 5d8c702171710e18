"""An output that depends on batch mates in eval mode is an error; rounding is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.results.leakage import Leakage


class BatchMean(nn.Module):
    """Takes the mean over the batch away."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class BatchMeanInForward(nn.Module):
    """The same without a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x)) / (1 + x.square().mean())


class TrainsItself(nn.Module):
    """Puts its norm into training mode whatever the mode of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        return self.last(self.norm(self.first(x)))


class ByPlace(nn.Module):
    """What comes first in the batch counts more."""

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.arange(1, len(x) + 1).to(x)[:, None]


class Attention(nn.Module):
    """Over positions inside a sample, or by mistake over samples: batch_first is not set."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.mixer = nn.MultiheadAttention(4, 2, batch_first=batch_first)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.view(-1, 3, 4)
        return self.last(self.mixer(tokens, tokens, tokens)[0].mean(1))


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def chain(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6), middle, nn.Linear(6, 3))


def amplifying() -> nn.Module:
    """Rounding grows by 300 at each of five layers, whose variance is far below eps."""
    layers: list[nn.Module] = [nn.Linear(12, 6)]
    for _ in range(5):
        norm = nn.BatchNorm1d(6)
        norm.running_var.zero_()
        layers += [norm, nn.Linear(6, 6), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def looked_at(net: nn.Module, **options: Any) -> Leakage:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 12, generator=generator)
    data = TensorDataset(x, torch.arange(64) % 3)
    return bnaudit.leakage(net, data, values=[8], draws=2, by="class", **options)


def error_of(found: Leakage) -> Any:
    return next((finding for finding in found.findings if finding.code == "BN321"), None)


DEPENDING: list[tuple[str, Callable[[], nn.Module], str, str | None]] = [
    ("no running statistics", lambda: chain(nn.BatchNorm1d(6, track_running_stats=False)), "2", ""),
    ("a mean over the batch", lambda: chain(BatchMean()), "2", "alone"),
    ("a mean in forward", BatchMeanInForward, "the output", "alone"),
    ("a layer that trains itself", TrainsItself, "norm", "other_mates"),
    ("attention over samples", lambda: Attention(batch_first=False), "mixer", "alone"),
    ("the place in the batch", lambda: chain(ByPlace()), "2", ""),
]


@pytest.mark.parametrize(
    ("what", "build", "layer", "how"), DEPENDING, ids=lambda one: str(one)[:24]
)
def test_the_module_where_the_batch_enters_is_named(
    what: str, build: Callable[[], nn.Module], layer: str, how: str | None
) -> None:
    torch.manual_seed(0)
    found = looked_at(build())
    assert found.dependence is not None
    assert found.dependence.depends
    assert found.dependence.layer == layer
    assert found.dependence.in_float64 is True
    if how:
        assert found.dependence.found_by == how
    error = error_of(found)
    assert error.severity == "error"
    assert layer in error.sentence or layer == "the output"
    assert found.findings[0] is error  # the gravest first


SOUND: list[tuple[str, Callable[[], nn.Module]]] = [
    ("batch norm", lambda: chain(nn.ReLU())),
    ("dropout, off in eval", lambda: chain(nn.Dropout(0.5))),
    ("layer norm", lambda: chain(nn.LayerNorm(6))),
    ("attention inside a sample", lambda: Attention(batch_first=True)),
    ("half precision", lambda: chain(nn.ReLU()).bfloat16()),
    ("rounding that grows", amplifying),
    ("an output nobody uses", lambda: Unused()),
]


class Unused(nn.Module):
    """Looks at the batch, and does nothing with it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.net = BatchMean(), chain(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        self.mean(x)
        return self.net(x)


@pytest.mark.parametrize(("what", "build"), SOUND, ids=lambda one: str(one)[:24])
def test_a_sound_model_has_no_such_finding(what: str, build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = build()
    half = next(net.parameters()).dtype == torch.bfloat16
    options = {"forward": lambda model, batch: model(batch[0].bfloat16())} if half else {}
    found = looked_at(net, **options)
    assert found.dependence is not None
    assert not found.dependence.depends
    assert error_of(found) is None


def test_a_stochastic_forward_is_not_blamed_on_the_batch() -> None:
    found = looked_at(chain(Noisy()))
    assert found.dependence is not None
    assert found.dependence.stochastic
    assert error_of(found) is None


def test_a_loader_that_gives_dicts_and_a_model_without_scores_are_looked_at_too() -> None:
    class Images(torch.utils.data.Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"image": torch.full((3, 4, 4), index / 40)}

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    found = bnaudit.leakage(net, DataLoader(Images(), batch_size=10), values=[5], draws=2)
    assert found.loader_order
    assert not found.dependence.depends
    assert found.sizes[0].shuffled.accuracy is None
    assert any("no class scores" in note for note in found.notes)
    assert any(
        "not grouped by class: the data have no class labels" in note for note in found.notes
    )
    assert not found.findings
