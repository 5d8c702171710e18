"""Layers that a recalibration leaves alone: they stay as they are, and the reason is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from alone import measure_alone, recalibrate_alone
from population_oracle import conv, images, largest_difference, moments, spoilt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.verbs.mixing import MixingRule


def seeded(make: Callable[[], nn.Module]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spoilt(make())


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if "running_" in k}


def kept(result: Any) -> dict[str, str]:
    """The reason of each layer that did not change."""
    return {x.name: x.reason for x in result.report.layers if not x.changed}


# --above where layers are called several times


class Recurrent(nn.Module):
    """Three BN layers in every step of a recurrence: each depends on all, its own last call too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = conv(3, 4), nn.BatchNorm2d(4)
        self.steps = nn.ModuleList(conv(4, 4) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        for _ in range(3):
            for step, norm in zip(self.steps, self.norms, strict=True):
                x = x + 0.3 * torch.tanh(norm(step(x)))
        return x.mean((2, 3))


ABOVE = [0.82, *(pytest.param(above, marks=pytest.mark.slow) for above in (0.78, 0.84, 0.86))]


@pytest.mark.parametrize("method", ["exact", pytest.param("sequential", marks=pytest.mark.slow)])
@pytest.mark.parametrize("above", ABOVE)
def test_a_layer_of_a_recurrence_that_is_left_alone_stays_alone(
    above: float, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, list[bool]] = {}

    plain = MixingRule.__call__

    def watched(rule: MixingRule, layer: Any, mean: Tensor, var: Tensor) -> Any:
        answer = plain(rule, layer, mean, var)
        answers.setdefault(layer.name, []).append(answer is not None)
        return answer

    monkeypatch.setattr(MixingRule, "__call__", watched)
    model, x = seeded(Recurrent), images(32)
    before = buffers(model)
    result = recalibrate_alone(model, x.split(8), above=above, method=method)
    assert all(len(set(given)) == 1 for given in answers.values())
    assert all("--above" in reason for reason in kept(result).values())
    after = buffers(model)
    for key, value in before.items():
        assert torch.equal(after[key], value) == (key.rsplit(".", 1)[0] in kept(result))


@pytest.mark.parametrize("above", ABOVE)
def test_the_residual_of_a_recurrence_is_what_measure_shows_of_the_layers_that_changed(
    above: float,
) -> None:
    model, x = seeded(Recurrent), images(32)
    report = recalibrate_alone(model, x.split(8), above=above).report
    audit = measure_alone(model, x.split(8))
    shown = {layer.name: layer.total_shift.plain for layer in audit.audited}
    assert [layer.calibration_after for layer in report.layers] == pytest.approx(
        [shown[layer.name] for layer in report.layers], abs=1e-6
    )
    largest = max(shown[layer.name] for layer in report.layers if layer.changed)
    assert report.residual == pytest.approx(largest, abs=1e-6)
    swept = float(report.notes[-1].rsplit(" ", 1)[1])
    assert largest == pytest.approx(swept, rel=0.05, abs=1e-6)


def test_a_recurrence_that_comes_to_rest_late_is_swept_until_it_does() -> None:
    report = recalibrate_alone(seeded(Recurrent), images(32).split(8), above=0.7).report
    assert report.residual <= 1e-5


# Layers in training mode


class Switching(nn.Module):
    """One of its layers is put into training mode inside the forward, where `when` says so."""

    def __init__(self, when: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.stem, self.first = conv(3, 4), nn.BatchNorm2d(4)
        self.inner, self.norm = conv(4, 4), nn.BatchNorm2d(4)
        self.deep, self.last = conv(4, 4), nn.BatchNorm2d(4)
        self.when = when

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(torch.relu(self.first(self.stem(x))))
        self.norm.train(self.when(x))
        x = torch.relu(self.norm(x))
        self.norm.eval()
        return self.last(self.deep(x)).mean((2, 3))


@pytest.mark.parametrize("method", ["exact", "sequential", "precise", "ema"])
def test_a_layer_that_the_forward_puts_into_training_mode_keeps_its_statistics(
    method: Any,
) -> None:
    model, x = seeded(lambda: Switching(lambda x: True)), images(32)
    before = buffers(model)
    result = recalibrate_alone(model, x.split(8), method=method)
    assert kept(result).keys() == {"norm"}
    assert "training mode inside its forward" in kept(result)["norm"]
    assert result.statistics.keys() == {"first", "last"}
    after = buffers(model)
    assert torch.equal(after["norm.running_mean"], before["norm.running_mean"])
    assert torch.equal(after["norm.running_var"], before["norm.running_var"])
    assert int(model.norm.num_batches_tracked) == 0


def test_statistics_are_not_the_buffers_that_a_forward_writes_into() -> None:
    """In float64 no cast makes a copy. Training mode shows in whole batches only, not in the few
    samples that are tried first: what PyTorch then writes goes into the statistics in place."""
    model = seeded(lambda: Switching(lambda x: len(x) > 4)).double()
    x = images(32).double()
    seen: list[Tensor] = []
    result = recalibrate_alone(model, x.split(8))
    result.revert()
    result.apply()
    with torch.no_grad():
        hook = model.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        for batch in x.split(8):
            model(batch)
        hook.remove()
    assert "norm" in result.statistics
    found = {"norm": result.statistics["norm"]}
    assert largest_difference(found, {"norm": moments(torch.cat(seen))}) < 1e-10


def test_the_statistics_of_a_result_are_not_the_models_own_tensors() -> None:
    model = seeded(lambda: Switching(lambda x: False)).double()
    result = recalibrate_alone(model, images(32).double().split(8))
    copies = {name: (mean.clone(), var.clone()) for name, (mean, var) in result.statistics.items()}
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.fill_(7)
            module.running_var.fill_(8)
    for name, pair in copies.items():
        torch.testing.assert_close(result.statistics[name], pair, rtol=0, atol=0)


# Layers that share their statistics


class Tied(nn.Module):
    """Two modules, two inputs, one `running_mean`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(3, 4), nn.BatchNorm2d(4)
        self.inner, self.second = conv(4, 4), nn.BatchNorm2d(4)
        self.deep, self.last = conv(4, 4), nn.BatchNorm2d(4)
        self.second.running_mean = self.first.running_mean

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(self.inner(torch.relu(self.first(self.stem(x))))))
        return self.last(self.deep(x)).mean((2, 3))


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_layers_that_share_a_tensor_keep_it_and_each_names_the_other(method: Any) -> None:
    model, x = seeded(Tied), images(32)
    before = buffers(model)
    result = recalibrate_alone(model, x.split(8), method=method)
    reasons = kept(result)
    assert reasons.keys() == {"first", "second"}
    assert "second" in reasons["first"]
    assert "first" in reasons["second"]
    assert result.report.residual < 1e-6
    assert model.first.running_mean is model.second.running_mean
    after = buffers(model)
    assert {key for key in before if not torch.equal(before[key], after[key])} == {
        "last.running_mean",
        "last.running_var",
    }
