"""Ghost batches and single examples in any BatchNorm module, against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnaudit.engine.batches import Batch, default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.discrepancies import DiscrepancyBySize
from bnaudit.engine.layers import find_layers
from bnaudit.engine.segments import GhostBatches, WeighedExamples
from bnaudit.engine.state import intercepted
from bnaudit.engine.variants import ESTIMATES, Variant, ghost_batches, variants_pass


def normalised(x: np.ndarray, mean: Any, var: Any, layer: nn.Module) -> np.ndarray:
    shape = (1, -1, *(1,) * (x.ndim - 2))
    gamma, beta = (p.detach().double().numpy().reshape(shape) for p in (layer.weight, layer.bias))
    return (x - mean) / np.sqrt(var + layer.eps) * gamma + beta


def layer_and_input(dims: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(dims)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[dims]
    layer = kind(3, eps=1e-3).eval()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.1, 3)
    return layer, 5 + 2 * torch.randn(12, 3, *(4,) * (dims - 2))


def run(layer: nn.Module, handler: Any, x: Tensor) -> Tensor:
    found = find_layers(layer)
    handler.start(len(x))
    with torch.no_grad(), intercepted(found, handler):
        return layer(x)


@pytest.mark.parametrize("dims", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [2, 4, 12])
def test_each_ghost_batch_is_normalised_by_its_own_moments(dims: int, size: int) -> None:
    layer, x = layer_and_input(dims)
    axes = (0, *range(2, dims))
    parts = np.split(x.double().numpy(), 12 // size)
    expected = [
        normalised(p, p.mean(axes, keepdims=True), p.var(axes, keepdims=True), layer) for p in parts
    ]
    y = run(layer, GhostBatches(size), x)
    np.testing.assert_allclose(y.numpy(), np.concatenate(expected), atol=2e-5)


def test_the_layer_has_its_own_statistics_again_and_does_what_else_it_does() -> None:
    class WithActivation(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    torch.manual_seed(0)
    layer = WithActivation(3).eval()
    mean = layer.running_mean
    y = run(layer, GhostBatches(2), torch.randn(4, 3, 5, 5))
    assert layer.running_mean is mean
    assert y.min() == 0
    assert y.max() > 0


def test_a_single_value_a_channel_keeps_the_estimates() -> None:
    layer, x = layer_and_input(2)
    handler = GhostBatches(1)
    y = run(layer, handler, x)
    with torch.no_grad():
        torch.testing.assert_close(y, layer(x))
    assert len(handler.kept) == 1


@pytest.mark.parametrize("dims", [3, 4, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_examples_are_weighed_into_the_estimates(dims: int, alpha: float) -> None:
    layer, x = layer_and_input(dims)
    values = x.double().numpy()
    axes = tuple(range(2, dims))
    shape = (1, -1, *(1,) * (dims - 2))
    running_mean = layer.running_mean.double().numpy().reshape(shape)
    running_var = layer.running_var.double().numpy().reshape(shape)
    own_mean = values.mean(axes, keepdims=True)
    own_square = (values**2).mean(axes, keepdims=True)
    mean = alpha * own_mean + (1 - alpha) * running_mean
    square = alpha * own_square + (1 - alpha) * (running_var + running_mean**2)
    expected = normalised(values, mean, square - mean**2, layer)
    y = run(layer, WeighedExamples(alpha), x)
    np.testing.assert_allclose(y.numpy(), expected, atol=2e-5)


def test_the_discrepancy_of_every_size_is_that_of_its_mini_batches() -> None:
    layer, x = layer_and_input(4)
    handler = DiscrepancyBySize([2, 5, 12, 13])
    y = run(layer, handler, x)
    with torch.no_grad():
        torch.testing.assert_close(y, layer(x))  # the layer runs as it is
    values, eps = x.double().numpy(), layer.eps
    estimated = layer.running_mean.double().numpy(), layer.running_var.double().numpy()
    for size in (2, 5, 12):
        squared = []
        for part in np.split(values[: 12 // size * size], 12 // size):
            m, v = part.mean((0, 2, 3)), part.var((0, 2, 3))
            s, s_hat = np.sqrt(v + eps), np.sqrt(estimated[1] + eps)
            d2 = ((m - estimated[0]) / s_hat) ** 2 + (np.sqrt(v) / s_hat - np.sqrt(v) / s) ** 2
            squared.append(d2.mean())
        (name,) = handler.order
        assert handler.squared(name, size) == pytest.approx(np.mean(squared), rel=1e-6)
    assert handler.squared(handler.order[0], 13) is None


def subject_of(model: nn.Module) -> Subject:
    cpu = torch.device("cpu")
    return Subject(model, find_layers(model), Conditions(default_forward, cpu))


def batches(x: Tensor, y: Tensor | None, size: int) -> list[Batch]:
    cuts = range(0, len(x), size)

    def data(i: int) -> Any:
        part = slice(i, i + size)
        return x[part] if y is None else (x[part], y[part])

    groups = torch.zeros(size, dtype=torch.long)
    return [Batch(n, data(i), groups[: len(x[i : i + size])]) for n, i in enumerate(cuts)]


def test_outcomes_stand_in_reading_order_and_say_who_took_part() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    x, y = torch.randn(10, 4), torch.randint(0, 3, (10,))
    subject = subject_of(model)
    with subject.conditions.entered(model):
        deployed, ghosts = variants_pass(
            subject, batches(x, y, 7), [ESTIMATES, ghost_batches(subject, 2)]
        )
    with torch.no_grad():
        logits = model(x)
    np.testing.assert_array_equal(deployed.correct, (logits.argmax(1) == y).double().numpy())
    loss = nn.functional.cross_entropy(logits, y, reduction="none")
    np.testing.assert_allclose(deployed.loss, loss.numpy(), atol=1e-6)
    assert deployed.agree.all()
    assert deployed.kl == pytest.approx(np.zeros(10), abs=1e-6)
    assert ghosts.took_part.tolist() == [True] * 6 + [False] + [True] * 2 + [False]
    assert np.isnan(ghosts.correct[[6, 9]]).all()
    assert not np.isnan(ghosts.loss[ghosts.took_part]).any()


def test_other_statistics_are_tried_without_touching_the_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    x = 3 + torch.randn(40, 4)
    subject = subject_of(model)
    (layer,) = subject.layers
    exact = {layer: (x.double().mean(0), x.double().var(0, correction=0))}
    before = model.state_dict()["0.running_mean"].clone()
    with subject.conditions.entered(model):
        old, new = variants_pass(
            subject,
            batches(x, None, 8),
            [Variant(observed=True), Variant(exact, observed=True)],
            groups=1,
        )
    assert np.isnan(old.correct).all()
    assert 0 < new.agree.mean() < 1
    assert torch.equal(model.state_dict()["0.running_mean"], before)
    (record,) = new.records.values()
    (site,) = record.sites
    np.testing.assert_allclose(site.groups.mean[0], x.double().mean(0), atol=1e-6)


def test_outputs_that_are_no_class_scores_are_compared_by_their_differences() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)).eval()
    subject = subject_of(model)
    data = batches(torch.randn(8, 2, 3, 3), None, 4)
    with subject.conditions.entered(model):
        same, other = variants_pass(subject, data, [ESTIMATES, ghost_batches(subject, 4)])
    assert same.relative_rms == 0
    assert other.relative_rms is not None
    assert other.relative_rms > 0
    assert np.isnan(other.agree).all()
