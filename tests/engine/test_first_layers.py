"""A pass that goes no further than the first BatchNorm layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnaudit.engine.batches import Batch, default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.first_layers import FirstShift, first_shift
from bnaudit.engine.layers import find_layers

GROUPS = 8


def net(layers: int = 5) -> nn.Sequential:
    """Convolutions and BatchNorm layers in turn, with statistics and γ drawn at random."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for i in range(layers):
        bn = nn.BatchNorm2d(6)
        nn.init.normal_(bn.running_mean, 0.0, 0.3)
        nn.init.uniform_(bn.running_var, 0.3, 2.0)
        nn.init.normal_(bn.weight)
        parts += [nn.Conv2d(3 if i == 0 else 6, 6, 3, padding=1), bn, nn.ReLU()]
    return nn.Sequential(*parts).eval()


def dealt(x: Tensor, every: int = 16) -> list[Batch]:
    groups = torch.arange(len(x)) * GROUPS // len(x)
    return [
        Batch(i, x[start : start + every], groups[start : start + every])
        for i, start in enumerate(range(0, len(x), every))
    ]


def shift_of(model: nn.Module, x: Tensor, double: bool = False) -> FirstShift:
    subject = Subject(model, find_layers(model), Conditions(default_forward, torch.device("cpu")))
    change = (lambda data: 2 * data) if double else None
    with subject.conditions.entered(model):
        found = first_shift(subject, dealt(x), change)
    assert found is not None
    return found


def inputs_of(model: nn.Module, x: Tensor) -> list[tuple[nn.BatchNorm2d, np.ndarray]]:
    seen: list[tuple[nn.BatchNorm2d, np.ndarray]] = []
    with torch.no_grad():
        for part in model:
            if isinstance(part, nn.BatchNorm2d):
                seen.append((part, x.double().numpy()))
            x = part(x)
    return seen


def by_numpy(bn: nn.BatchNorm2d, x: np.ndarray) -> float:
    """The squared output shift, from its definition: Σγ²d²/Σγ²."""
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    m, v = bn.running_mean.double().numpy(), bn.running_var.double().numpy()
    gamma = bn.weight.detach().double().numpy()
    s, s_hat = np.sqrt(var + bn.eps), np.sqrt(v + bn.eps)
    d2 = ((mean - m) / s_hat) ** 2 + (np.sqrt(var) / s_hat - np.sqrt(var) / s) ** 2
    return float((gamma**2 * d2).sum() / (gamma**2).sum())


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_shift_of_the_first_three_layers_is_that_of_numpy(x: Tensor) -> None:
    model = net()
    found = shift_of(model, x)
    expected = [by_numpy(bn, values) for bn, values in inputs_of(model, x)[:3]]
    assert found.layers == ("1", "4", "7")
    assert found.by_layer == pytest.approx(expected, rel=1e-5)
    assert found.squared == pytest.approx(np.mean(expected), rel=1e-5)


def test_each_group_is_left_out_once(x: Tensor) -> None:
    model = net()
    found = shift_of(model, x)
    each = len(x) // GROUPS
    for group in range(GROUPS):
        rest = torch.cat([x[: group * each], x[(group + 1) * each :]])
        expected = np.mean([by_numpy(bn, values) for bn, values in inputs_of(model, rest)[:3]])
        assert found.left_out[group] == pytest.approx(expected, rel=1e-5)


def test_the_forward_ends_at_the_third_layer(x: Tensor) -> None:
    model = net()
    calls: list[str] = []
    for name, part in model.named_children():
        part.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    shift_of(model, x)
    assert set(calls) == {str(i) for i in range(8)}  # the third layer is number 7


def test_a_change_reaches_the_model_and_not_the_data(x: Tensor) -> None:
    kept = x.clone()
    assert shift_of(net(), x, double=True).squared == pytest.approx(
        shift_of(net(), 2 * x).squared, rel=1e-6
    )
    assert torch.equal(x, kept)


def test_a_network_of_two_layers_has_two(x: Tensor) -> None:
    assert shift_of(net(2), x).layers == ("1", "4")


def test_a_layer_without_any_gamma_does_not_count(x: Tensor) -> None:
    model = net()
    nn.init.zeros_(model[4].weight)
    assert shift_of(model, x).layers == ("1", "7")


def test_the_model_is_as_before(x: Tensor) -> None:
    model = net().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    shift_of(model, x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all("forward" not in module.__dict__ for module in model.modules())
