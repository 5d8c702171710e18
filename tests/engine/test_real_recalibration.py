"""Recalibrating a real network on real images: the shared ResNet-20 of He et al. 2016.

The figures of other tools on the same images, and of bnaudit's prototype: ../shared/facts.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from cifar_resnet import DATA, CifarResNet, read_test_images, trained
from torch import Tensor
from torch.utils.data import TensorDataset

import bnaudit

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="no folder ../shared/data"),
]

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """4,000 test images of all classes, as the network takes them, in a random order."""
    x, y = read_test_images()
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:4000]
    return x[chosen], y[chosen]


@pytest.fixture
def model() -> CifarResNet:
    return trained(3)


def halves(x: Tensor, y: Tensor) -> tuple[TensorDataset, TensorDataset]:
    return TensorDataset(x[:2000], y[:2000]), TensorDataset(x[2000:], y[2000:])


def of_pixels(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`change` on pixels in 0 to 1, ahead of the normalisation."""
    return (change(x * STD + MEAN) - MEAN) / STD


@pytest.mark.parametrize("size", [4, 16, 64, 250])
def test_the_residual_is_rounding_at_every_batch_size(
    size: int, model: CifarResNet, images: tuple[Tensor, Tensor]
) -> None:
    """fvcore on as many images: 1.3e-1, 3.4e-2, 8.4e-3, 1.9e-3."""
    result = bnaudit.recalibrate(model, TensorDataset(images[0][:2000]), batch_size=size)
    report = result.report
    print(f"batch {size}: residual {report.residual:.1e}, before {report.residual_before:.2f}")
    assert len(report.changed) == 19
    for layer in report.changed:
        assert layer.calibration_after is not None
        assert layer.calibration_after <= 1e-5, layer.name
    assert report.residual is not None
    assert report.residual <= 1e-6  # 4e-8 when it was written


def test_batches_and_their_order_do_not_count(
    model: CifarResNet, images: tuple[Tensor, Tensor]
) -> None:
    data = TensorDataset(images[0][:1000])
    found = [
        bnaudit.recalibrate(copy.deepcopy(model), data, batch_size=size, seed=seed).statistics
        for size, seed in ((4, 0), (250, 0), (100, 7))
    ]
    for other in found[1:]:
        for name, (mean, var) in found[0].items():
            s = (var + 1e-5).sqrt()
            assert float(((other[name][0] - mean) / s).abs().max()) < 1e-5, name
            assert float(((other[name][1].sqrt() - var.sqrt()) / s).abs().max()) < 1e-5, name


def test_exact_and_sequential_agree(model: CifarResNet, images: tuple[Tensor, Tensor]) -> None:
    data = TensorDataset(images[0][:400])
    one, other = (
        bnaudit.recalibrate(copy.deepcopy(model), data, method=method).statistics
        for method in ("exact", "sequential")
    )
    for name, (mean, var) in one.items():
        s = (var + 1e-5).sqrt()
        assert float(((other[name][0] - mean) / s).abs().max()) < 1e-5, name
        assert float(((other[name][1].sqrt() - var.sqrt()) / s).abs().max()) < 1e-5, name


SHIFTS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "contrast x 0.4": (lambda p: (p - of_image(p)) * 0.4 + of_image(p), 0.12),
    "brightness x 0.3": (lambda p: p * 0.3, 0.14),
    "x 0.5 + 0.5": (lambda p: p * 0.5 + 0.5, 0.17),
}


def of_image(pixels: Tensor) -> Tensor:
    return pixels.mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("shift", SHIFTS)
def test_what_shifted_images_cost_is_won_back(
    shift: str, model: CifarResNet, images: tuple[Tensor, Tensor]
) -> None:
    change, at_least = SHIFTS[shift]
    calibration, others = halves(of_pixels(change, images[0]), images[1])
    result = bnaudit.recalibrate(model, calibration, verify=others)
    verification = result.report.verification
    assert verification is not None
    accuracy = verification.accuracy
    assert accuracy is not None
    print(f"{shift}: {accuracy.before:.3f} -> {accuracy.after:.3f}; {result.decision.sentence}")
    assert verification.labelled == 2000
    assert verification.overlap == 0
    assert accuracy.difference >= at_least
    assert accuracy.low is not None
    assert accuracy.low > at_least - 0.05
    assert result.decision.level == "gain"
    assert result.applied
    assert accuracy_of(model, *others.tensors) == pytest.approx(accuracy.after, abs=6e-4)
    result.revert()
    assert accuracy_of(model, *others.tensors) == pytest.approx(accuracy.before, abs=6e-4)


def test_images_as_they_are_need_no_new_statistics_and_are_told_so(
    model: CifarResNet, images: tuple[Tensor, Tensor]
) -> None:
    """0.81 instead of 0.92 on these JPEGs, and not for the statistics."""
    calibration, others = halves(*images)
    result = bnaudit.recalibrate(model, calibration, verify=others)
    sentence, level = result.decision.sentence, result.decision.level
    print(sentence)
    verification = result.report.verification
    assert verification is not None
    accuracy = verification.accuracy
    assert accuracy is not None
    assert accuracy.low is not None
    assert -0.03 < accuracy.difference < 0.02
    assert level in ("no-loss", "undecided", "loss")
    assert (level == "no-loss") is (accuracy.low > -0.005)
    assert result.applied is (level == "no-loss")
    assert "that is not what costs accuracy" in sentence
    if level == "undecided":
        assert "neither is the gain significant" in sentence
        assert "nor is a loss" in sentence
        assert result.decision.samples_needed is not None
        assert result.decision.samples_needed > 2000


@torch.no_grad()
def accuracy_of(model: CifarResNet, x: Tensor, y: Tensor) -> float:
    """By a plain loop."""
    correct = sum(
        int((model(part).argmax(1) == labels).sum())
        for part, labels in zip(x.split(250), y.split(250), strict=True)
    )
    return correct / len(y)
