"""`sweep_batch_size`: figures against oracles, what is concluded, and real images."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.engine.variants import Outcomes
from bnaudit.errors import InputError
from bnaudit.results.sweep import Sweep
from bnaudit.verbs.batch_size_conclusions import trained_at
from bnaudit.verbs.sweep_batch_size import sweep_batch_size

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
sys.path.append(str(SAMPLES))

from digits import model as digits_net  # noqa: E402
from train import load_split  # noqa: E402


def digits(split: str, samples: int | None = None) -> TensorDataset:
    x, y = load_split(SAMPLES / "digits.npz", split)
    return TensorDataset(x[:samples], y[:samples])


def sample_model(name: str) -> nn.Module:
    model = digits_net()
    model.load_state_dict(torch.load(SAMPLES / f"{name}.pt"))
    return model.eval()


@cache
def swept(name: str = "small_batch") -> Sweep:
    return sweep_batch_size(
        sample_model(name), digits("test"), train_data=digits("train", 400), values=[2, 8, 32]
    )


def in_train_mode(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """PyTorch's own train mode, batch by batch: the share that is right."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    model.train()
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).float() for x, y in batches]
    return float(torch.cat(right).mean())


@pytest.mark.parametrize("size", [2, 8, 32])
def test_accuracies_are_those_of_pytorchs_train_mode_at_that_size(size: int) -> None:
    dataset = digits("test", 96)
    x, y = dataset.tensors
    loader = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 96, 32)]
    sweep = sweep_batch_size(sample_model("small_batch"), loader, values=[size])
    cut = [(x[i : i + size], y[i : i + size]) for i in range(0, 96, size)]
    expected = in_train_mode(sample_model("small_batch"), cut)
    (point,) = sweep.points
    assert point.scores.accuracy is not None
    assert point.scores.accuracy.value == pytest.approx(expected, abs=1e-6)
    assert point.scores.samples == 96


def test_the_discrepancy_is_that_of_measure_at_this_size() -> None:
    dataset = digits("test", 192)
    audit = bnaudit.measure(
        sample_model("small_batch"), dataset, train_batch_size=8, batch_size=32, attribute="none"
    )
    sweep = sweep_batch_size(sample_model("small_batch"), dataset, values=[8, 32])
    point = sweep.of("held-out")[0]
    assert sweep.layers == tuple(layer.name for layer in audit.audited)
    measured = [layer.discrepancy for layer in audit.audited]
    np.testing.assert_allclose(point.by_layer, measured, rtol=1e-4)
    assert point.shift is not None
    rms = float(np.sqrt(np.mean(np.square(measured))))
    assert point.shift.value == pytest.approx(rms, rel=1e-4)


def test_larger_mini_batches_are_less_noisy_and_come_close_to_exact_statistics() -> None:
    for role in ("train", "held-out"):
        points = swept().of(role)
        assert [p.value for p in points] == [2, 8, 32]
        shifts = [p.shift.value for p in points if p.shift]
        assert shifts == sorted(shifts, reverse=True)
        gaps = [p.loss_from_exact.difference for p in points if p.loss_from_exact]
        assert gaps == sorted(gaps, reverse=True)
        assert 0 < gaps[-1] < 0.02


def test_the_estimates_of_a_lagging_average_lose_to_mini_batches() -> None:
    sweep = swept("lagging_ema")
    held_out = next(data for data in sweep.data if data.role == "held-out")
    assert held_out.estimates.accuracy is not None
    assert held_out.exact is not None
    assert held_out.exact.accuracy is not None
    assert held_out.estimates.accuracy.value == pytest.approx(0.648, abs=0.01)  # its README
    assert held_out.exact.accuracy.value == pytest.approx(0.992, abs=0.01)
    change = sweep.of("held-out")[-1].accuracy_change
    assert change is not None
    assert change.low is not None
    assert change.low > 0.25


def test_the_training_size_is_told_in_the_right_order() -> None:
    found = {}
    for name in ("small_batch", "healthy"):
        sweep = sweep_batch_size(
            sample_model(name),
            digits("test", 256),
            train_data=digits("train", 512),
            values=[2, 4, 8, 16, 32],
        )
        conclusion = sweep.conclusion("trained-at")
        assert conclusion is not None
        assert conclusion.significant
        assert conclusion.value is not None
        assert f"about {conclusion.value:g} or more" in conclusion.sentence
        found[name] = conclusion.value
    assert found["small_batch"] < found["healthy"]
    assert 2 <= found["small_batch"] <= 8  # trained at 2
    assert 8 <= found["healthy"] <= 32  # trained at 32


def test_what_a_larger_batch_gives_is_told_for_the_size_the_user_names() -> None:
    sweep = sweep_batch_size(
        sample_model("small_batch"), digits("test"), values=[2, 32], train_batch_size=2
    )
    larger = sweep.conclusion("larger-batch")
    assert larger is not None
    assert larger.gain is not None
    assert larger.significant
    assert larger.gain.difference == pytest.approx(0.09, abs=0.03)
    assert "32 instead of 2" in larger.sentence


def test_without_labels_nothing_is_concluded_and_the_rest_stands() -> None:
    x, _ = digits("test").tensors
    sweep = sweep_batch_size(sample_model("healthy"), TensorDataset(x), values=[4, 16])
    assert sweep.conclusions == ()
    for point in sweep.points:
        assert point.scores.accuracy is None
        assert point.scores.agreement is not None
        assert point.scores.kl is not None


def test_the_model_is_left_alone_and_the_result_can_be_read_back() -> None:
    model = sample_model("healthy").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sweep = sweep_batch_size(model, digits("test", 64), values=[4, 16])
    assert model.training
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert Sweep.from_json(sweep.to_json()) == sweep
    assert list(sweep.to_frame()["value"]) == [4, 16]


def test_by_default_the_sizes_are_those_that_the_data_can_fill() -> None:
    sweep = sweep_batch_size(sample_model("healthy"), digits("test", 40))
    assert sweep.values == (2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1], "1 is no mini-batch size; give a whole number, 2 or more"),
        ([2.5], "2.5 is no mini-batch size"),
        ([], "values: there is none"),
        ([float("nan")], "nan is no mini-batch size"),
        ([float("inf")], "inf is no mini-batch size"),
        ([2, 512], "mini-batches of 512: there are 40 samples"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sweep_batch_size(sample_model("healthy"), digits("test", 40), values=values)


def test_a_loader_cannot_fill_mini_batches_larger_than_its_own() -> None:
    loader = DataLoader(digits("test", 40), batch_size=8)
    with pytest.raises(InputError, match="mini-batches of 16: there are 8 samples a batch"):
        sweep_batch_size(sample_model("healthy"), loader, values=[4, 16])


def test_a_peak_between_the_sizes_is_told_with_both_its_ends() -> None:
    sizes = {2: 0.6, 8: 0.9, 16: 0.895, 64: 0.8}
    concluded = trained_at({"train": {size: outcomes(share) for size, share in sizes.items()}})
    assert concluded is not None
    assert concluded.value == 8
    assert concluded.candidates == (8, 16)
    assert "about 8 to 16: there the accuracy" in concluded.sentence


def test_sizes_that_do_alike_tell_nothing() -> None:
    concluded = trained_at({"train": {size: outcomes(0.9) for size in (2, 8, 32)}})
    assert concluded is not None
    assert concluded.value is None
    assert not concluded.significant
    assert "does not tell" in concluded.sentence


def test_the_size_that_the_user_names_is_tried_and_not_guessed() -> None:
    sweep = sweep_batch_size(
        sample_model("small_batch"), digits("test"), values=[4, 32], train_batch_size=2
    )
    assert sweep.values == (2, 4, 32)
    assert sweep.conclusion("trained-at") is None
    assert sweep.conclusion("larger-batch") is not None
    assert [finding.code for finding in sweep.findings] == ["BN221"]


def outcomes(accuracy: float, n: int = 1000) -> Outcomes:
    """The first samples are right."""
    correct = (np.arange(n) < accuracy * n).astype(float)
    return Outcomes(np.ones(n, bool), correct, 1 - correct, correct, correct)
