"""Sweeps of a real network on real images whose contrast has fallen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch.utils.data import TensorDataset

sys.path.append(str(Path(__file__).resolve().parents[1] / "engine"))

from cifar_resnet import DATA, read_test_images, trained

from bnaudit.verbs.sweep_momentum import sweep_momentum
from bnaudit.verbs.sweep_samples import sweep_samples

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data"),
]


def dull(start: int, stop: int) -> TensorDataset:
    """Images with two fifths of their contrast, about each image's mean."""
    x, y = read_test_images()
    order = [i * 7919 % len(x) for i in range(start, stop)]  # classes mixed
    x, y = x[order], y[order]
    mean = x.mean((1, 2, 3), keepdim=True)
    return TensorDataset(mean + 0.4 * (x - mean), y)


def test_a_few_hundred_images_recover_most_of_what_lost_contrast_cost() -> None:
    """../shared/facts.md: 0.590 deployed, 0.732 recalibrated on 2,000 images."""
    sweep = sweep_samples(
        trained(3), dull(0, 512), verify=dull(2000, 2500), values=[2, 64, 512], draws=2
    )
    (data,) = sweep.data
    assert data.estimates.accuracy is not None
    assert data.estimates.accuracy.value == pytest.approx(0.59, abs=0.06)
    two, some, many = sweep.points
    assert many.accuracy_change is not None
    assert many.accuracy_change.low is not None
    assert many.accuracy_change.low > 0.05
    assert two.accuracy_from_exact is not None
    assert two.accuracy_from_exact.difference < -0.05
    assert some.shift is not None
    assert two.shift is not None
    assert some.shift.value < 0.15 < two.shift.value


def test_a_moving_average_over_few_mini_batches_reaches_them_with_a_large_momentum_alone() -> None:
    sweep = sweep_momentum(
        trained(3), dull(0, 512), verify=dull(2000, 2500), values=[0.003, 0.1, 0.3], batch_size=64
    )
    slow, usual, fast = sweep.points
    for point in (slow, usual, fast):
        assert point.loss_from_exact is not None
        assert point.shift is not None
    assert slow.loss_from_exact is not None
    assert slow.loss_from_exact.low is not None
    assert slow.loss_from_exact.low > 0
    assert slow.shift is not None
    assert fast.shift is not None
    assert fast.shift.value < slow.shift.value
