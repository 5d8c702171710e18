"""`sweep_momentum`: one pass, the framework's own averages, and where they meet exact ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from sweep_inputs import digits, pixels, sample_model
from torch import nn
from torch.utils.data import DataLoader

from bnaudit.errors import InputError
from bnaudit.results.sweep import Sweep
from bnaudit.verbs.calibration_pool import calibration_pool
from bnaudit.verbs.sweep_momentum import sweep_momentum
from bnaudit.verbs.workbench import workbench

MOMENTA = (0.02, 0.3)


def layers_of(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def with_momentum(name: str, momentum: float | None) -> nn.Module:
    model = sample_model(name)
    for layer in layers_of(model).values():
        layer.momentum = momentum
    return model


@cache
def swept() -> Sweep:
    """The network that was trained with momentum 0.0005, at that momentum."""
    return sweep_momentum(
        with_momentum("lagging_ema", 0.0005),
        digits("train"),
        verify=digits("test"),
        values=[0.01, 0.1, 1.0],
    )


def test_the_averages_are_those_of_pytorchs_own_training_mode() -> None:
    loader = DataLoader(digits("train", 72), batch_size=16)  # the last batch holds 8
    bench = workbench(sample_model("small_batch"), loader)
    with bench.subject.conditions.entered(bench.subject.model):
        pool = calibration_pool(bench, bench.data, lambda line: None)
        found = pool.moving_averages(MOMENTA).by_momentum
    for momentum, statistics in zip(MOMENTA, found, strict=True):
        model = with_momentum("small_batch", momentum).train()
        with torch.no_grad():
            for x, _ in loader:
                model(x)
        expected = layers_of(model)
        assert {layer.name for layer in statistics} == set(expected)
        for layer, (mean, var) in statistics.items():
            own = expected[layer.name]
            assert own.running_mean is not None
            assert own.running_var is not None
            np.testing.assert_allclose(mean, own.running_mean, atol=2e-5)
            np.testing.assert_allclose(var, own.running_var, rtol=1e-4, atol=2e-5)


def test_one_pass_in_mini_batches_serves_all_momenta() -> None:
    def forwards(momenta: list[float]) -> int:
        model = sample_model("healthy")
        calls = []
        model.register_forward_pre_hook(lambda m, args: calls.append(len(args[0])))
        bench = workbench(model, digits("train", 64))
        with bench.subject.conditions.entered(model):
            pool = calibration_pool(bench, bench.data, lambda line: None)
            calls.clear()
            pool.moving_averages(momenta)
        return len(calls)

    assert forwards([0.1]) == forwards([0.5, 0.1, 0.01, 0.001]) == 2


def test_the_layers_own_momentum_is_among_those_that_are_tried() -> None:
    assert swept().current == 0.0005
    assert swept().values == (0.0005, 0.01, 0.1, 1.0)


def test_a_lagging_average_is_found_and_a_larger_momentum_does_better() -> None:
    conclusion = swept().conclusion("best")
    assert conclusion is not None
    assert conclusion.value == 0.1
    assert conclusion.significant
    assert "99% of the old statistics are left at 0.0005" in conclusion.sentence
    assert "does as well as exact statistics" in conclusion.sentence
    (finding,) = swept().findings
    assert (finding.code, finding.severity) == ("BN123", "warning")
    assert finding.evidence["updates"] == 29
    lagging = swept().points[0]
    assert lagging.accuracy_from_exact is not None
    assert lagging.accuracy_from_exact.difference < -0.2


def test_an_average_that_follows_the_last_mini_batch_is_found() -> None:
    sweep = sweep_momentum(
        with_momentum("healthy", 1.0),
        digits("train", 200),
        verify=digits("test", 300),
        values=[0.1, 1.0],
        train_batch_size=4,
    )
    assert sweep.calibration is not None
    assert sweep.calibration.batch_size == 4
    (finding,) = sweep.findings
    assert finding.code == "BN124"
    assert "momentum 0.1 does better than 1" in finding.sentence


class Flat(nn.Module):
    """A layer that has one value a channel of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.out = nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.bn(x.flatten(1)))


def test_mini_batches_that_do_not_move_the_average_are_not_counted() -> None:
    x, y = pixels("train", 33)
    loader = [(x[:16], y[:16]), (x[16:32], y[16:32]), (x[32:], y[32:])]  # the last holds one
    held_out = digits("test", 40)
    sweep = sweep_momentum(Flat().eval(), loader, verify=held_out, values=[0.5])
    assert sweep.updates == 2
    assert any(note.startswith("2 mini-batches of 16:") for note in sweep.notes)
    convolutional = sweep_momentum(sample_model("healthy"), loader, verify=held_out, values=[0.5])
    assert convolutional.updates == 3  # a single image has many values a channel
    single = [(x[i : i + 1], y[i : i + 1]) for i in range(4)]
    with pytest.raises(InputError, match="the moving average never moves"):
        sweep_momentum(Flat().eval(), single, verify=held_out, values=[0.5])


def test_a_loader_keeps_its_batches_and_that_is_noted() -> None:
    loader = DataLoader(digits("train", 32), batch_size=16)
    held_out = digits("test", 40)

    def notes(data: object) -> str:
        options = {"verify": held_out, "values": [0.5], "train_batch_size": 4}
        return " | ".join(sweep_momentum(sample_model("healthy"), data, **options).notes)

    assert "its batches are its own, mini-batches of 4 cannot be made" in notes(loader)
    assert "2 mini-batches of 16" in notes(loader)
    assert "its own" not in notes(digits("train", 32))
    assert "8 mini-batches of 4" in notes(digits("train", 32))


def test_a_momentum_that_keeps_up_is_no_finding() -> None:
    sweep = sweep_momentum(
        sample_model("healthy"), digits("train", 400), verify=digits("test", 300), values=[0.1]
    )
    assert sweep.findings == ()
    assert sweep.points[0].shift is not None
    assert sweep.points[0].shift.value < 0.1


def test_layers_without_a_momentum_in_common_have_no_current_one() -> None:
    model = sample_model("healthy")
    next(iter(layers_of(model).values())).momentum = 0.5
    sweep = sweep_momentum(model, digits("train", 40), verify=digits("test", 40), values=[0.1])
    assert sweep.current is None
    assert any("no momentum in common" in note for note in sweep.notes)
    cumulative = sweep_momentum(
        with_momentum("healthy", None), digits("train", 40), verify=digits("test", 40), values=[0.1]
    )
    assert cumulative.current is None


def test_the_estimates_compete_where_no_momentum_is_in_force() -> None:
    sweep = sweep_momentum(
        with_momentum("healthy", None),
        digits("train", 40),
        verify=digits("test", 200),
        values=[1.0],
        train_batch_size=4,
    )
    conclusion = sweep.conclusion("best")
    assert conclusion is not None
    assert conclusion.value is None
    assert not conclusion.significant
    assert "None of these momenta has a lower loss than the estimates" in conclusion.sentence


def test_a_momentum_outside_of_its_range_is_refused() -> None:
    for value in (0.0, 1.5):
        with pytest.raises(InputError, match="is no momentum; give a number above 0, and at most"):
            sweep_momentum(sample_model("healthy"), digits("train", 8), values=[value])
    with pytest.raises(InputError, match="train_batch_size is 0"):
        sweep_momentum(sample_model("healthy"), digits("train", 8), train_batch_size=0)


def test_the_model_is_left_as_it_was() -> None:
    model = sample_model("small_batch").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = pixels("test", 40)
    sweep_momentum(model, [(x[:20], y[:20]), (x[20:], y[20:])], values=[0.1, 0.5])
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
