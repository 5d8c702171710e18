"""Sound models have no finding of leakage, whatever the number of classes and the files' order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from digit_nets import (
    digits,
    grouped_by_class,
    in_random_order,
    odd_or_even,
    sample_model,
    ten_classes,
    trained,
)
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import DEFAULT
from bnaudit.results.leakage import Leakage


def codes(found: Leakage) -> list[tuple[str, str]]:
    return [(finding.code, finding.severity) for finding in found.findings]


def of_parity(batches: Callable[[Tensor], Iterator[Tensor]]) -> Leakage:
    images, labels = digits("train")
    net = trained(batches, 0, odd_or_even)
    data = TensorDataset(images, odd_or_even(labels))
    return bnaudit.leakage(net, data, values=[8], draws=2, samples=480, by="class")


@pytest.mark.parametrize("name", [pytest.param("healthy", marks=pytest.mark.slow), "small_batch"])
def test_the_sound_sample_models_have_no_finding(name: str) -> None:
    data = TensorDataset(*digits("train"))
    found = bnaudit.leakage(sample_model(name), data, values=[8], draws=2, samples=640)
    assert codes(found) == []
    assert found.probed is not None
    assert max(layer.mates.difference for layer in found.probed.layers) > 0.2  # a probe alone


@pytest.mark.slow
def test_of_two_classes_the_layers_are_told_only_of_the_model_that_follows_its_mates() -> None:
    sound, leaky = of_parity(in_random_order), of_parity(grouped_by_class)
    assert codes(sound) == []
    assert codes(leaky) == [("BN320", "warning"), ("BN322", "info")]
    for found in (sound, leaky):
        assert found.probed is not None
        assert found.probed.classes == 2
    # What the probes of the leaky one read is no finding where the output does not follow.
    assert conclude((replace(sound, probed=leaky.probed),), DEFAULT) == ()


@pytest.mark.slow
def test_an_order_of_two_classes_that_does_better_is_no_leak_where_one_class_does_worse() -> None:
    """The files lie by brightness, and half of any batch is of one class anyway."""
    images, labels = digits("train")
    bright = torch.arange(len(labels)) % 2 == 0
    moved = torch.where(bright[:, None, None, None], 0.3 * images + 0.7, images)
    by_brightness = torch.argsort(bright.long(), stable=True)
    data = TensorDataset(moved[by_brightness], odd_or_even(labels)[by_brightness])
    net = trained(in_random_order, 0, odd_or_even)
    found = bnaudit.leakage(net, data, values=[32], draws=2, samples=640, by=["class", "order"])
    order, grouped = found.sizes[0].arrangements[::-1]
    assert order.accuracy is not None
    assert order.accuracy.low is not None
    assert order.accuracy.low > 0.01
    assert order.purity is not None
    assert order.purity > 0.5
    assert order.purity_shuffled == pytest.approx(0.57, abs=0.03)  # E max(k, 32 - k) / 32
    assert grouped.accuracy is not None
    assert grouped.accuracy.high is not None
    assert grouped.accuracy.high < -0.1
    assert ("BN320", "info") in codes(found)
    assert not any(severity == "warning" for _, severity in codes(found))


def test_an_order_by_class_is_a_leak_where_batches_of_one_class_are_not_looked_at() -> None:
    images, labels = digits("train")
    classes = odd_or_even(labels)
    order = torch.argsort(classes, stable=True)
    data = TensorDataset(images[order], classes[order])
    net = trained(grouped_by_class, 0, odd_or_even)
    found = bnaudit.leakage(net, data, values=[8], draws=2, samples=480, by="order")
    assert ("BN320", "warning") in codes(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("classes", [ten_classes, odd_or_even])
def test_other_seeds_are_told_apart_as_well(classes: Callable[[Tensor], Tensor], seed: int) -> None:
    images, labels = digits("train")
    data = TensorDataset(images, classes(labels))
    for batches in (in_random_order, grouped_by_class):
        net = trained(batches, seed, classes)
        found = bnaudit.leakage(net, data, values=[8], draws=3, samples=640, by="class")
        assert found.probed is not None
        worst = max(layer.mates.difference for layer in found.probed.layers)
        if batches is in_random_order:
            assert codes(found) == []
            assert worst < 0.5
        else:
            assert codes(found) == [("BN320", "warning"), ("BN322", "info")]
            assert worst > 0.55


def test_outputs_that_are_not_finite_are_refused() -> None:
    x, y = torch.randn(64, 4), torch.arange(64) % 2
    x[5] = float("nan")
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    with pytest.raises(InputError, match="outputs of 1 of 64 samples are not finite"):
        bnaudit.leakage(model, TensorDataset(x, y), values=[8])
