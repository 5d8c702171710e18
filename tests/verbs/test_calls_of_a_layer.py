"""Layers called several times, not by every batch, and called with something odd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from alone import NO_TRIALS, measure_alone, recalibrate_alone
from torch import Tensor, nn

import bnaudit


def shift(inputs: list[Tensor], layer: Any, eps: float = 1e-5) -> float:
    """The plain estimation shift of a layer on `inputs`, from the definition, in float64."""
    rows = torch.cat([x.double().movedim(1, -1).flatten(0, -2) for x in inputs])
    m, v = rows.mean(0), rows.var(0, correction=0)
    s = (layer.running_var.double() + eps).sqrt()
    d2 = ((m - layer.running_mean.double()) / s) ** 2
    d2 = d2 + (v.sqrt() / s - v.sqrt() / (v + eps).sqrt()) ** 2
    return float(d2.mean().sqrt())


class Twice(nn.Module):
    """One layer, called for each image and again for its dark part: not for every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.bn.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(x)
        if bool(x.max() < 5):
            y = y + self.bn(x * 3 + 1)
        return y.mean((2, 3))


@pytest.mark.parametrize("sizes", [[8, 8, 8], [8, 8, 3], [5, 8, 7]])
@pytest.mark.parametrize("once", [None, 0, 1])
def test_each_call_of_a_layer_has_a_shift_of_its_own(sizes: list[int], once: int | None) -> None:
    """Also where batches differ in size, and where one of them calls the layer once."""
    torch.manual_seed(0)
    batches = [torch.rand(n, 3, 4, 4) for n in sizes]
    if once is not None:
        batches[once][0, 0, 0, 0] = 9
    again = [x * 3 + 1 for i, x in enumerate(batches) if i != once]
    model = Twice()
    (layer,) = measure_alone(model, batches).layers
    first, second = layer.call_sites
    assert (first.call, second.call) == (0, 1)
    assert first.count == sum(sizes) * 16
    assert second.count == sum(map(len, again)) * 16
    assert first.total_shift == pytest.approx(shift(batches, model.bn), rel=1e-5)
    assert second.total_shift == pytest.approx(shift(again, model.bn), rel=1e-5)
    assert layer.total_shift.plain == pytest.approx(shift(batches + again, model.bn), rel=1e-5)


class OwnNorm(nn.Module):
    """Of a kind that bnaudit does not know, with running statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.full((channels,), 0.5))
        self.register_buffer("running_var", torch.full((channels,), 2.0))
        self.eps, self.momentum = 1e-5, 0.1

    def forward(self, x: Any = None) -> Any:
        if not isinstance(x, Tensor):
            return x
        shape = (1, -1, *[1] * (x.dim() - 2)) if x.dim() > 1 else (-1,)
        mean, var = self.running_mean.view(shape), self.running_var.view(shape)
        return (x.float() - mean) / (var + self.eps).sqrt()


class With(nn.Module):
    """A BN layer, and a norm of its own called by `call`."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.bn, self.own = nn.BatchNorm2d(3), OwnNorm(3)
        self.bn.running_mean.fill_(0.45)
        self.bn.running_var.fill_(0.08)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        self.call(self.own, x)
        return x.mean((2, 3))


ODD: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "a 1-D tensor": lambda own, x: own(x.mean((0, 2, 3))),
    "a list": lambda own, x: own([x]),
    "a number": lambda own, x: own(3.0),
    "None": lambda own, x: own(None),
    "a keyword": lambda own, x: own(x=[x]),
    "integers": lambda own, x: own(x.long()),
    "no dimension": lambda own, x: own(x.sum()),
}


WITHOUT_INPUT = pytest.param(
    lambda own, x: own(),
    id="nothing",
)


@pytest.mark.parametrize(
    "call", [*(pytest.param(call, id=name) for name, call in ODD.items()), WITHOUT_INPUT]
)
def test_an_odd_input_leaves_a_layer_of_unknown_kind_unverified(
    call: Callable[[nn.Module, Tensor], Any],
) -> None:
    torch.manual_seed(0)
    model, batches = With(call), torch.rand(32, 3, 4, 4).split(8)
    bn, own = bnaudit.measure(model, batches, policy=NO_TRIALS).layers
    assert bn.status == "audited"
    assert (own.status, own.total_shift) == ("unverified", None)
    assert own.note
    result = recalibrate_alone(model, batches)
    assert result.statistics.keys() == {"bn"}
    assert result.report.layers[1].reason == own.note
    assert result.report.residual < 1e-6
    assert bool((model.own.running_mean == 0.5).all())
