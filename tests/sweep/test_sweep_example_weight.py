"""`sweep_example_weight`: against the converted model, and an honest choice of the weight."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bnaudit import nn as bnn
from bnaudit.errors import InputError, NonFiniteError
from bnaudit.results.sweep import Sweep
from bnaudit.verbs.sweep_example_weight import sweep_example_weight

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
sys.path.append(str(SAMPLES))

from digits import model as digits_net  # noqa: E402
from train import load_split  # noqa: E402


def held_out(samples: int | None = None) -> tuple[Tensor, Tensor]:
    x, y = load_split(SAMPLES / "digits.npz", "test")
    return x[:samples], y[:samples]


def sample_model(name: str) -> nn.Module:
    model = digits_net()
    model.load_state_dict(torch.load(SAMPLES / f"{name}.pt"))
    return model.eval()


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
def test_figures_are_those_of_the_converted_model(weight: float) -> None:
    x, y = held_out(64)
    sweep = sweep_example_weight(sample_model("small_batch"), TensorDataset(x, y), values=[weight])
    converted = copy.deepcopy(sample_model("small_batch"))
    bnn.convert(converted, "example-weighing", alpha=weight)
    with torch.no_grad():
        logits = converted.eval()(x)
    scores = sweep.points[0].scores
    assert scores.loss is not None
    assert scores.accuracy is not None
    expected = nn.functional.cross_entropy(logits, y)
    assert scores.loss.value == pytest.approx(float(expected), rel=1e-4)
    right = (logits.argmax(1) == y).double().mean()
    assert scores.accuracy.value == pytest.approx(float(right))


def test_the_weight_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    sweep = sweep_example_weight(sample_model("lagging_ema"), TensorDataset(*held_out()))
    best = sweep.conclusion("best")
    assert best is not None
    assert best.value == pytest.approx(0.1, abs=0.06)
    assert best.significant
    assert best.gain is not None
    assert best.gain.low is not None
    assert best.gain.low > 0
    assert "chosen on one half" in best.sentence
    whole = next(p for p in sweep.points if p.value == best.value).accuracy_change
    assert whole is not None
    assert whole.difference != best.gain.difference


@pytest.mark.slow
def test_where_no_weight_helps_that_is_said() -> None:
    sweep = sweep_example_weight(sample_model("healthy"), TensorDataset(*held_out()))
    best = sweep.conclusion("best")
    assert best is not None
    assert best.value == 0
    assert not best.significant
    assert "leave it at 0" in best.sentence


def test_weight_0_is_the_estimates_and_weights_are_told_from_each_other() -> None:
    sweep = sweep_example_weight(
        sample_model("healthy"), TensorDataset(*held_out(100)), values=[0.5, 0]
    )
    zero, half = sweep.points
    assert zero.scores == sweep.data[0].estimates
    assert zero.scores.agreement is not None
    assert zero.scores.agreement.value == 1
    assert half.scores.agreement is not None
    assert half.scores.agreement.value < 1
    assert Sweep.from_json(sweep.to_json()) == sweep


def test_without_labels_nothing_is_chosen_and_that_is_said() -> None:
    x, _ = held_out(40)
    sweep = sweep_example_weight(sample_model("healthy"), TensorDataset(x), values=[0, 0.2])
    assert sweep.conclusions == ()
    assert any("no labels" in note for note in sweep.notes)


@pytest.mark.parametrize("values", [[-0.1], [1.5], [float("nan")], []])
def test_weights_that_cannot_be_are_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match=r"give a number from 0 to 1|there is none"):
        sweep_example_weight(sample_model("healthy"), TensorDataset(*held_out(8)), values=values)


def test_the_chosen_half_is_every_other_labelled_sample() -> None:
    from bnaudit.engine.variants import Outcomes
    from bnaudit.verbs.best_value import best_on_half

    n = 10
    labels = np.array([1.0] * n)
    labels[3] = np.nan
    low, high = np.full(n, 0.1), np.full(n, 0.2)

    def outcomes(loss: np.ndarray) -> Outcomes:
        return Outcomes(np.ones(n, bool), labels, loss, labels, labels)

    found = best_on_half(outcomes(high), {0.0: outcomes(high), 0.3: outcomes(low)})
    assert found is not None
    weight, judging = found
    assert weight == 0.3
    assert judging.sum() == 4
    assert not judging[3]


def test_the_estimates_compete_where_weight_0_is_not_asked_for() -> None:
    data = TensorDataset(*held_out(None))
    best = sweep_example_weight(sample_model("healthy"), data, values=[0.3, 0.5]).conclusion("best")
    assert best is not None
    assert best.value == 0
    assert "leave it at 0" in best.sentence


def test_frames_of_a_video_are_weighed_as_the_converted_model_weighs_them() -> None:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.head = nn.BatchNorm2d(3), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            frames = self.bn(x.flatten(0, 1)).mean((2, 3))
            return self.head(frames.square()).unflatten(0, x.shape[:2]).mean(1)

    torch.manual_seed(0)
    model = Video().eval()
    x, y = 2 + torch.randn(20, 5, 3, 4, 4), torch.randint(0, 4, (20,))
    sweep = sweep_example_weight(model, TensorDataset(x, y), values=[0.4])
    converted = copy.deepcopy(model)
    bnn.convert(converted, "example-weighing", alpha=0.4)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(converted.eval()(x), y)
    loss = sweep.points[0].scores.loss
    assert loss is not None
    assert loss.value == pytest.approx(float(expected), rel=1e-4)


def test_a_gain_of_accuracy_at_a_higher_loss_is_told() -> None:
    data = TensorDataset(*held_out(None))
    best = sweep_example_weight(sample_model("small_batch"), data).conclusion("best")
    assert best is not None
    assert best.value == 0
    assert "The accuracy is higher at 0." in best.sentence


def test_few_labels_choose_nothing() -> None:
    sweep = sweep_example_weight(
        sample_model("healthy"), TensorDataset(*held_out(12)), values=[0, 0.1]
    )
    assert sweep.conclusions == ()
    assert any("too few labelled samples" in note for note in sweep.notes)


def test_inputs_that_are_not_finite_are_told_with_the_layer() -> None:
    x, y = held_out(40)
    x = x.clone()
    x[7] = float("nan")
    with pytest.raises(NonFiniteError, match="layer bn receives NaN"):
        sweep_example_weight(sample_model("healthy"), TensorDataset(x, y), values=[0, 0.1])
