"""The change of the shift between two measurements of the same samples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.findings.shift_change import largest_shift_change, layer_shift_change
from bnaudit.results import Audit, LayerAudit
from bnaudit.stats.roots import jackknife_root

WIDTH = 6


def measured(*shifts: float, samples: int = 400, seed: int = 0) -> Audit:
    """An Audit of BN layers, each of which is off by so many deviations of what comes to it."""
    norms = [nn.BatchNorm1d(WIDTH) for _ in shifts]
    offset = 0.0
    for norm, shift in zip(norms, shifts, strict=True):
        norm.get_buffer("running_mean").fill_(offset + shift)
        offset = -shift
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.randn(samples, WIDTH, generator=generator))
    return bnaudit.measure(nn.Sequential(*norms), data, attribute="none", batch_size=100)


def debiased_square(layer: LayerAudit) -> float:
    """D² − b by the definition: b = (k − 1)(mean left out − D²)."""
    assert layer.total_shift is not None
    left_out = np.array(layer.left_out_squared_shift)
    plain = layer.total_shift.plain**2
    return float(plain - (len(left_out) - 1) * (left_out.mean() - plain))


def test_the_figure_is_the_root_mean_square_of_the_layers() -> None:
    before, after = measured(0.3, 0.5, 0.1), measured(0.0, 0.05, 0.0)
    found = layer_shift_change(before, after)
    assert found is not None
    sides = [np.mean([debiased_square(layer) for layer in a.audited]) for a in (before, after)]
    assert found.before == pytest.approx(math.sqrt(sides[0]))
    assert found.after == pytest.approx(math.sqrt(max(0, sides[1])))
    assert found.difference == pytest.approx(found.after - found.before)


def test_the_interval_tells_a_change_from_none() -> None:
    shifted, right = measured(0.3, 0.5, 0.1), measured(0.0, 0.05, 0.0)
    down, up = layer_shift_change(shifted, right), layer_shift_change(right, shifted)
    same = layer_shift_change(right, right)
    assert down is not None
    assert up is not None
    assert same is not None
    assert down.high is not None
    assert down.high < 0
    assert up.low is not None
    assert up.low > 0
    assert same.low is not None
    assert same.high is not None
    assert same.low <= 0 <= same.high


def test_both_intervals_hold_the_true_change() -> None:
    covered, largest_covered = 0, 0
    for seed in range(24):
        before = measured(0.3, 0.5, 0.5, samples=200, seed=seed)
        after = measured(0.0, 0.1, 0.0, samples=200, seed=seed)
        layers = layer_shift_change(before, after)
        largest = largest_shift_change(before, after)
        assert layers is not None
        assert largest is not None
        true = math.sqrt(0.01 / 3) - math.sqrt((0.09 + 0.25 + 0.25) / 3)
        covered += (layers.low or 0) <= true <= (layers.high or 0)
        largest_covered += (largest.low or 0) <= 0.1 - 0.5 <= (largest.high or 0)
    assert covered >= 21
    assert largest_covered >= 21


def test_the_largest_layer_may_be_another_one_afterwards() -> None:
    before, after = measured(0.1, 0.6), measured(0.3, 0.0)
    found = largest_shift_change(before, after)
    assert found is not None
    for value, audit, name in ((found.before, before, "1"), (found.after, after, "0")):
        shift = audit.layer(name).total_shift
        assert shift is not None
        assert value == pytest.approx(shift.value)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high < 0


def test_layers_are_matched_by_name_and_those_without_figures_left_out() -> None:
    before, after = measured(0.3, 0.5), measured(0.0, 0.0)
    without = replace(after.layer("1"), total_shift=None, left_out_squared_shift=())
    found = layer_shift_change(before, replace(after, layers=(without, after.layer("0"))))
    assert found is not None
    assert found.before == pytest.approx(math.sqrt(debiased_square(before.layer("0"))))
    assert layer_shift_change(before, replace(after, layers=(without,))) is None
    assert largest_shift_change(before, replace(after, layers=(without,))) is None


def test_a_layer_that_some_samples_never_reached_is_left_out() -> None:
    before, after = measured(0.3, 0.5), measured(0.0, 0.0)
    layer = after.layer("1")
    seldom = replace(layer, left_out_squared_shift=layer.left_out_squared_shift[1:])
    found = layer_shift_change(before, replace(after, layers=(after.layer("0"), seldom)))
    assert found is not None
    assert found.high is not None
    assert found.before == pytest.approx(math.sqrt(debiased_square(before.layer("0"))))


def test_few_samples_give_figures_without_limits() -> None:
    before, after = measured(0.5, 0.5, samples=5), measured(0.0, 0.0, samples=5)
    for found in (layer_shift_change(before, after), largest_shift_change(before, after)):
        assert found is not None
        assert found.low is None
        assert found.high is None
        assert found.before > 0


def test_a_single_layer_is_its_own_interval() -> None:
    before, after = measured(0.5), measured(0.2)
    found = layer_shift_change(before, after)
    layer = before.layers[0]
    assert found is not None
    assert layer.total_shift is not None
    root = jackknife_root(layer.total_shift.plain**2, np.array(layer.left_out_squared_shift))
    assert root is not None
    assert root[:3] == pytest.approx(
        (layer.total_shift.value, layer.total_shift.low, layer.total_shift.high)
    )
    assert found.before == pytest.approx(layer.total_shift.value)
