"""A published network on real images: sound, and sensitive to batches in the files' order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch.utils.data import TensorDataset

import bnaudit

sys.path.append(str(Path(__file__).resolve().parents[1] / "engine"))
from cifar_resnet import DATA, read_test_images, trained

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent"),
]


def test_a_published_resnet_does_not_exploit_its_batches() -> None:
    data = TensorDataset(*read_test_images())
    found = bnaudit.leakage(trained(3), data, values=[32], samples=800, draws=3)
    assert found.dependence is not None
    assert not found.dependence.depends
    shuffled = found.sizes[0].shuffled.accuracy
    assert shuffled is not None
    assert shuffled.value == pytest.approx(0.772, abs=0.04)  # as measured in training mode at 32
    # The files lie by class: batches in their order are of one, and it does far worse there.
    codes = {finding.code: finding for finding in found.findings}
    assert "BN320" not in codes
    assert "BN321" not in codes
    assert codes["BN323"].severity == "info"
    for by in ("class", "order"):
        one = found.sizes[0].arrangement(by)
        assert one is not None
        assert one.accuracy is not None
        assert one.accuracy.high is not None
        assert one.accuracy.high < -0.1
