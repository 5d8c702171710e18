"""What measure and recalibrate say of the layers for training; figures against NumPy."""

import copy

import numpy as np
import pytest
import torch
from references import inputs, random_like
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit import nn as bnn
from bnaudit.engine.layers import find_layers
from bnaudit.engine.segments import GhostBatches, WeighedExamples
from bnaudit.engine.state import intercepted

NORMS = ("1", "4")


def network(make) -> nn.Module:
    """Two layers made by `make()`: (N, 3, 8, 8) to four classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        random_like(make(), seed=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        random_like(make(), seed=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def data(n: int = 160) -> TensorDataset:
    """Images and labels."""
    x = inputs((n, 3, 8, 8), torch.float32)
    return TensorDataset(x + 0.3 * x.square(), torch.arange(n) % 4)


def inputs_by_group(model: nn.Module, name: str, groups: int) -> np.ndarray:
    """What a layer sees in eval(), (groups, values) in float64: the oracle's own hook."""
    model, seen = copy.deepcopy(model).eval(), []
    layer = model.get_submodule(name)
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(data().tensors[0])
    x = torch.cat(seen).double().numpy()
    return x.reshape(len(x), groups, -1).swapaxes(0, 1).reshape(groups, -1)


def squared_shift(layer, values: np.ndarray) -> np.ndarray:
    """d² by group, from the definition."""
    mean, var = (t.double().numpy() for t in (layer.running_mean, layer.running_var))
    m, v = values.mean(1), values.var(1)
    s, s_hat = np.sqrt(v + layer.eps), np.sqrt(var + layer.eps)
    return ((m - mean) / s_hat) ** 2 + (np.sqrt(v) / s_hat - np.sqrt(v) / s) ** 2


@pytest.mark.parametrize(("groups", "examples"), [(3, 2), (1, None), (6, None), (2, 1)])
def test_batch_group_norm_is_measured_by_its_groups(groups, examples):
    model = network(lambda: bnn.BatchGroupNorm2d(6, groups, examples))
    audit = bnaudit.measure(model, data(), batch_size=16)
    for name in NORMS:
        layer = model.get_submodule(name)
        figures = next(one for one in audit.layers if one.name == name)
        d2 = squared_shift(layer, inputs_by_group(model, name, groups))
        gamma2 = layer.weight.detach().double().numpy().reshape(groups, -1) ** 2
        output2 = (gamma2.mean(1) * d2).sum() / gamma2.mean(1).sum()
        assert (figures.status, figures.channels) == ("audited", groups)
        assert figures.kind == "BatchGroupNorm2d"
        assert figures.total_shift.plain == pytest.approx(np.sqrt(d2.mean()), rel=1e-5)
        assert figures.output_shift.plain == pytest.approx(np.sqrt(output2), rel=1e-5)
        assert figures.count == 160 * (36 if name == "1" else 16) * 6 // groups


def test_mini_batch_statistics_of_batch_group_norm_are_its_groups():
    model = network(lambda: bnn.BatchGroupNorm2d(6, 3))
    audit = bnaudit.measure(model, data(), batch_size=160)
    layer, figures = model[1], audit.layers[0]
    assert audit.layers[1].discrepancy is not None
    expected = squared_shift(layer, inputs_by_group(model, "1", 3)).mean() ** 0.5
    assert figures.discrepancy == pytest.approx(expected, rel=1e-5)  # one batch: all the data


@pytest.mark.parametrize(("groups", "examples"), [(3, 2), (1, None), (6, 4)])
@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_exact_recalibration_of_batch_group_norm_leaves_only_rounding(groups, examples, method):
    model = network(lambda: bnn.BatchGroupNorm2d(6, groups, examples))
    bnaudit.recalibrate(model, data(), method=method, batch_size=16).apply()
    for name in NORMS:
        layer = model.get_submodule(name)
        values = inputs_by_group(model, name, groups)
        np.testing.assert_allclose(layer.running_mean.numpy(), values.mean(1), atol=2e-6)
        np.testing.assert_allclose(layer.running_var.numpy(), values.var(1), rtol=2e-6)
        assert np.sqrt(squared_shift(layer, values).mean()) < 3e-6


def test_ghost_batch_norm_is_measured_as_batch_norm():
    ghost = network(lambda: bnn.GhostBatchNorm2d(6, 4))
    plain = network(lambda: nn.BatchNorm2d(6))
    plain.load_state_dict(ghost.state_dict())
    found, expected = (bnaudit.measure(model, data()) for model in (ghost, plain))
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert one.kind == "GhostBatchNorm2d"
        assert (one.total_shift, one.output_shift) == (other.total_shift, other.output_shift)


def test_example_weighing_is_listed_and_says_what_to_measure_instead():
    weighing = network(lambda: bnn.ExampleWeighingBatchNorm2d(6, 0.3))
    audit = bnaudit.measure(weighing, data())
    assert {one.status for one in audit.layers} == {"not-audited"}
    assert all("alpha = 0" in one.note for one in audit.layers)
    for module in weighing.modules():
        if isinstance(module, bnn.ExampleWeighingBatchNorm2d):
            module.alpha = 0.0
    plain = network(lambda: nn.BatchNorm2d(6))
    found, expected = (bnaudit.measure(model, data()) for model in (weighing, plain))
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.status, one.total_shift) == ("audited", other.total_shift)


def test_batch_group_norm_without_statistics_depends_on_the_batch_unless_it_is_group_norm():
    audit = bnaudit.measure(
        network(lambda: bnn.BatchGroupNorm2d(6, 3, 2, track_running_stats=False)), data()
    )
    assert {one.status for one in audit.layers} == {"batch-dependent"}
    group_norm = network(lambda: bnn.BatchGroupNorm2d(6, 3, 1, track_running_stats=False))
    assert bnaudit.measure(group_norm, data()).layers == ()


def intercepted_output(model: nn.Module, handler, x: torch.Tensor) -> torch.Tensor:
    """The model's output in eval() with the engine's handler at every layer."""
    model.eval()
    handler.start(len(x))
    with torch.no_grad(), intercepted(find_layers(model), handler):
        return model(x)


def test_what_the_sweeps_try_is_what_the_converted_model_does():
    x = data(32).tensors[0]
    plain = network(lambda: nn.BatchNorm2d(6))
    weighing = bnn.convert(copy.deepcopy(plain), "example-weighing", alpha=0.3).model.eval()
    tried = intercepted_output(plain, WeighedExamples(0.3), x)
    torch.testing.assert_close(tried, weighing(x).detach(), rtol=1e-4, atol=1e-5)
    ghost = bnn.convert(copy.deepcopy(plain), "ghost", ghost_size=4).model.train()
    tried = intercepted_output(plain, GhostBatches(4), x)
    torch.testing.assert_close(tried, ghost(x).detach(), rtol=1e-4, atol=1e-5)
    grouped = network(lambda: bnn.BatchGroupNorm2d(6, 3, 4))
    tried = intercepted_output(copy.deepcopy(grouped), GhostBatches(4), x)
    torch.testing.assert_close(tried, grouped.train()(x).detach(), rtol=1e-4, atol=1e-5)
