"""A model that was trained on batches grouped by class stands out against a sound one."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from digit_nets import digit_data, digits, grouped_by_class, in_random_order, trained
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import find_layers
from bnaudit.results.leakage import Leakage
from bnaudit.stats.arrangements import of_one_group, shuffled
from bnaudit.verbs.leakage_pass import Outcome, Runner
from bnaudit.verbs.leakage_pool import read_pool
from bnaudit.verbs.samples import MapReader


@cache
def of_leaky() -> Leakage:
    return bnaudit.leakage(
        trained(grouped_by_class),
        digit_data(),
        train_batch_size=64,
        group_size=8,
        samples=480,
        draws=2,
    )


@cache
def of_sound() -> Leakage:
    return bnaudit.leakage(
        trained(in_random_order), digit_data(), values=[8, 32], samples=640, draws=2
    )


def codes(found: Leakage) -> set[str]:
    return {finding.code for finding in found.findings}


def test_a_model_trained_on_classes_is_told_with_its_figures() -> None:
    found = of_leaky()
    grouped = found.sizes[0].arrangement("class")
    assert grouped is not None
    assert grouped.accuracy is not None
    assert grouped.accuracy.low is not None
    assert found.sizes[0].size == 8
    assert found.batch_size == 64
    assert grouped.purity == 1
    assert grouped.accuracy.low > 0.2  # trained so: about 0.88 against 0.42
    assert found.deployed.accuracy is not None
    assert found.deployed.accuracy.value < grouped.accuracy.after - 0.2
    told = next(finding for finding in found.findings if finding.code == "BN320")
    assert told.severity == "warning"
    assert f"{grouped.accuracy.after:.1%}" in told.sentence


def test_a_sound_model_does_worse_in_batches_of_one_class_and_has_no_finding() -> None:
    found = of_sound()
    assert codes(found) == set()
    for size in found.sizes:
        grouped = size.arrangement("class")
        assert grouped is not None
        assert grouped.accuracy is not None
        assert grouped.accuracy.high is not None
        assert grouped.accuracy.high < -0.5


def test_strangers_get_the_class_of_their_mates_only_after_training_on_classes() -> None:
    leaky, sound = of_leaky().sizes[0].strangers, of_sound().sizes[0].strangers
    assert leaky is not None
    assert sound is not None
    assert leaky.mates.low is not None
    assert leaky.mates.low > 0.2
    assert leaky.mates.after > leaky.own.value
    assert sound.mates.difference < 0.02
    assert sound.own.value > 0.8


def test_the_files_order_of_shuffled_files_changes_nothing() -> None:
    for found in (of_leaky(), of_sound()):
        for size in found.sizes:
            order = size.arrangement("order")
            assert order is not None
            assert order.accuracy is not None
            assert order.accuracy.low is not None
            assert order.accuracy.high is not None
            assert order.accuracy.low < 0 < order.accuracy.high


def test_layers_that_carry_their_mates_are_named_by_a_probe() -> None:
    leaky, sound = of_leaky(), of_sound()
    named = next(finding for finding in leaky.findings if finding.code == "BN322")
    assert "blocks.3.bn2" in named.layers
    assert leaky.probed is not None
    assert sound.probed is not None
    assert len(leaky.probed.layers) == 9
    last, sound_last = leaky.probed.layers[-1], sound.probed.layers[-1]
    assert last.mates.after > 0.5
    assert sound_last.mates.after < 0.35
    for probed in (leaky.probed, sound.probed):
        for layer in probed.layers:
            assert layer.mates.before < 0.25  # ten classes
            assert layer.mates.low is not None
            assert layer.mates.low <= layer.mates.difference
        # In batches of one class the moments tell it in every model.
        assert probed.layers[-1].moments.after > 0.9
        assert probed.layers[-1].moments.before == pytest.approx(0.12, abs=0.04)


def test_domains_that_do_better_apart_are_no_leak_for_certain() -> None:
    """Every second image is brighter: batches of one brightness suit a sound model better."""
    images, labels = digits("train")
    bright = torch.arange(len(labels)) % 2 == 0
    moved = torch.where(bright[:, None, None, None], 0.3 * images + 0.7, images)

    def brightness(batch: list[torch.Tensor]) -> list[bool]:
        return (batch[0].amin((1, 2, 3)) > 0.5).tolist()

    data = TensorDataset(moved, labels)
    found = bnaudit.leakage(
        trained(in_random_order), data, values=[32], draws=3, samples=640, by=brightness
    )
    grouped = found.sizes[0].arrangement("brightness")
    assert grouped is not None
    assert grouped.accuracy is not None
    assert grouped.accuracy.low is not None
    assert grouped.accuracy.low > 0
    assert [(finding.code, finding.severity) for finding in found.findings] == [("BN320", "info")]
    assert "bnaudit domains" in found.findings[0].remedy


def test_a_result_comes_back_from_its_document() -> None:
    for found in (of_leaky(), of_sound()):
        assert Leakage.from_json(found.to_json()) == found


def test_the_same_seed_gives_the_same_and_the_model_is_left_alone() -> None:
    net = copy.deepcopy(trained(in_random_order)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    runs = [
        bnaudit.leakage(net, digit_data("verify"), values=[8], draws=2, samples=160, by="class")
        for _ in range(2)
    ]
    assert runs[0].to_json() == runs[1].to_json()
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


def test_each_batch_is_normalised_as_in_training_mode() -> None:
    """Against PyTorch's own train-mode forward, one mini-batch at a time."""
    net = trained(in_random_order)
    pool = read_pool(MapReader(digit_data("verify"), 32, None, 0), {}, lambda n: None)
    assert pool.labels is not None
    rng = np.random.default_rng(0)
    subject = Subject(net, find_layers(net), Conditions(default_forward, torch.device("cpu")))
    for batches in (shuffled(pool.samples, 8, rng), of_one_group(pool.labels, 16, rng)):
        with subject.conditions.entered(net):
            found, kept = Runner(subject, pool, "auto", 64, lambda n: None).mini_batches(batches)
        assert kept == set()
        expected = _in_training_mode(net, pool.data, batches)
        placed = expected.batches >= 0
        assert (found.batches == expected.batches).all()
        assert (found.predicted[placed] == expected.predicted[placed]).mean() > 0.999
        assert np.isnan(found.correct[~placed]).all()
        np.testing.assert_allclose(found.loss, expected.loss, rtol=2e-3, atol=2e-3)


def _in_training_mode(net: nn.Module, data: list[torch.Tensor], batches: np.ndarray) -> Outcome:
    images, labels = data
    fresh = copy.deepcopy(net).train()
    n = len(images)
    expected = Outcome(np.full(n, -1), np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1))
    with torch.no_grad():
        for number, batch in enumerate(batches):
            logits = fresh(images[batch]).double()
            expected.predicted[batch] = logits.argmax(1).numpy()
            loss = nn.functional.cross_entropy(logits, labels[batch], reduction="none")
            expected.loss[batch] = loss.numpy()
            expected.batches[batch] = number
    return expected


def test_the_samples_are_read_in_the_files_order() -> None:
    images, labels = digits("verify")
    pool = read_pool(MapReader(digit_data("verify"), 32, 100, 3), {}, lambda n: None)
    in_order = pool.data[0][pool.order]
    places = [int((images == image).flatten(1).all(1).nonzero()[0]) for image in in_order]
    assert places == sorted(places)
    assert pool.labels is not None
    assert (pool.labels == pool.data[1].numpy()).all()
    assert len(labels) == 400
