"""The verdict, from models that are measured: what is known of their statistics is known exactly.

Every layer here sees standard normal values; what its estimates are off by is put in by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.results import Audit

WIDTH = 6


def normal(samples: int, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(samples, WIDTH, generator=generator))


def off_by(*shifts: float) -> nn.Sequential:
    """BN layers one after another, each estimate of the mean off by so many deviations."""
    norms = [nn.BatchNorm1d(WIDTH, affine=True) for _ in shifts]
    offset = 0.0
    for norm, shift in zip(norms, shifts, strict=True):
        # A layer upstream that is off hands its own error on: what counts is what comes on top.
        norm.get_buffer("running_mean").fill_(offset + shift)
        offset = -shift
    return nn.Sequential(*norms)


def measured(model: nn.Module, samples: int = 2000, **options: Any) -> Audit:
    options = {"attribute": "none", "batch_size": 200} | options
    return bnaudit.measure(model, normal(samples), **options)


def verdict(audit: Audit) -> tuple[str, str]:
    assert audit.verdict is not None
    return audit.verdict.level, audit.verdict.sentence


def test_right_estimates_are_healthy() -> None:
    level, sentence = verdict(measured(off_by(0.0, 0.0, 0.0)))
    assert level == "healthy"
    assert "all 3 layers" in sentence
    assert "below 0.1" in sentence


def test_estimates_that_are_off_by_little_are_healthy() -> None:
    assert verdict(measured(off_by(0.05, 0.0, 0.0)))[0] == "healthy"


def test_one_wrong_layer_is_counted_and_named_with_its_interval() -> None:
    audit = measured(off_by(0.0, 0.5, 0.0))
    level, sentence = verdict(audit)
    assert level == "shifted"
    assert "1 of 3 layers" in sentence
    assert re.search(
        r"largest output shift 0\.\d+, 95% interval 0\.\d+ to 0\.\d+, layer 1\b", sentence
    )
    wrong = audit.layer("1").output_shift
    assert wrong is not None
    assert wrong.low < 0.5 < wrong.high  # type: ignore[operator]


def test_a_wrong_layer_that_contributes_nothing_is_no_shift() -> None:
    model = off_by(0.0, 3.0)
    with torch.no_grad():
        model.get_buffer("1.running_mean")[1:] = 0
        model.get_parameter("1.weight")[0] = 0
    audit = measured(model)
    assert audit.layer("1").total_shift.value > 1  # type: ignore[union-attr]
    assert verdict(audit)[0] == "healthy"


def test_a_shift_at_the_threshold_is_undecided_and_no_number_of_samples_would_do() -> None:
    level, sentence = verdict(measured(off_by(0.1), samples=400))
    assert level == "undecided"
    assert "1 of 1 layer may or may not exceed an output shift of 0.1 on 400 samples" in sentence


def test_the_number_of_samples_that_would_do_does() -> None:
    level, sentence = verdict(measured(off_by(0.2), samples=60))
    assert level == "undecided"
    found = re.search(r"about ([\d,]+) samples would do", sentence)
    assert found, sentence
    needed = int(found[1].replace(",", ""))
    assert 60 < needed < 100 * 60
    # At the number itself it is a coin's toss, since it is estimated too.
    assert verdict(measured(off_by(0.2), samples=2 * needed))[0] == "shifted"


def test_too_few_samples_are_said_to_be_too_few() -> None:
    audit = measured(off_by(2.0), samples=5)
    level, sentence = verdict(audit)
    assert level == "undecided"
    assert "5 samples are too few for intervals" in sentence
    assert "160" in sentence
    assert audit.layers[0].total_shift.low is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: nn.Linear(WIDTH, 2), "no BatchNorm layer"),
        (lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False), "batch dependent"),
    ],
    ids=["no layer", "no estimates"],
)
def test_nothing_to_audit_is_said_with_the_reason(
    model: Callable[[], nn.Module], reason: str
) -> None:
    level, sentence = verdict(measured(model()))
    assert level == "nothing-to-audit"
    assert reason in sentence


def test_noise_alone_is_never_called_a_shift() -> None:
    levels = [
        verdict(
            bnaudit.measure(
                off_by(0.0, 0.0, 0.0, 0.0), normal(160, seed), attribute="none", batch_size=80
            )
        )[0]
        for seed in range(20)
    ]
    assert "shifted" not in levels


def test_the_verdict_says_what_mini_batches_do_to_accuracy() -> None:
    x, labels = normal(400).tensors[0], torch.zeros(400, dtype=torch.long)
    _, sentence = verdict(bnaudit.measure(off_by(0.0), TensorDataset(x, labels), batch_size=20))
    assert re.search(r"top-1 accuracy \d+\.\d% with the estimates, \d+\.\d% with", sentence)
    assert sentence.endswith("mini-batch statistics at 20.")


class OnlyTheFirstBatches(nn.Module):
    """A wrong layer that every batch meets, and one that only the first one meets."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.rarely = off_by(0.5), nn.BatchNorm1d(WIDTH)
        self.left = 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.always(x)
        if self.left:
            self.left -= 1
            y = self.rarely(y)
        return y


def test_a_layer_that_is_seldom_called_does_not_hide_a_wrong_one() -> None:
    level, sentence = verdict(measured(OnlyTheFirstBatches()))
    assert level == "shifted", sentence


def test_a_layer_with_a_negative_variance_is_not_healthy() -> None:
    model = off_by(0.0, 0.0)
    model.get_buffer("1.running_var").fill_(-1.0)
    audit = measured(model, task="other")
    assert audit.layer("1").undefined_channels == tuple(range(WIDTH))
    assert verdict(audit)[0] != "healthy", verdict(audit)[1]
