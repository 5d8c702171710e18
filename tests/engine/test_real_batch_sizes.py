"""The normalisation batch size of a real network: shared ResNet-20, all shared test images."""

from __future__ import annotations

import pytest
from cifar_resnet import DATA, read_test_images, trained
from torch.utils.data import TensorDataset

from bnaudit.verbs.sweep_batch_size import sweep_batch_size

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="no folder ../shared/data"),
]


def test_train_mode_accuracy_rises_with_the_mini_batch_and_stays_below_the_estimates() -> None:
    """Measured before in train mode: 0.717, 0.772, 0.788 at 8, 32, 128; the estimates 0.810."""
    data = TensorDataset(*read_test_images())
    sweep = sweep_batch_size(trained(3), data, values=[8, 32, 128], batch_size=128)
    accuracies = [p.scores.accuracy.value for p in sweep.points if p.scores.accuracy]
    assert accuracies == pytest.approx([0.717, 0.772, 0.788], abs=0.01)
    assert [p.scores.samples for p in sweep.points] == [10_000, 9_984, 9_984]
    estimates = sweep.data[0].estimates.accuracy
    assert estimates is not None
    assert estimates.value == pytest.approx(0.810, abs=0.002)
