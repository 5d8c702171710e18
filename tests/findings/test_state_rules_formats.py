"""BN015 to BN017: what folding and half precision make of the statistics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stored_states import LAYERS, Net, findings_of, state_of, train
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bnaudit.findings.policy import Policy

FORMATS = {"BN015", "BN016", "BN017"}


def test_a_trained_network_folds_and_fits() -> None:
    assert not FORMATS & set(findings_of(train(Net(), 60)))


def with_a_faint_filter() -> Net:
    model = Net()
    with torch.no_grad():
        model.b.conv.weight[3] *= 1e-4
    model.b.conv.weight.requires_grad_(False)
    return train(model, 200)


def test_a_scale_that_explodes_is_the_factor_by_which_folding_multiplies() -> None:
    model = with_a_faint_filter()
    finding = findings_of(model)["BN015"]
    assert finding.severity == "warning"
    (entry,) = finding.evidence["by_layer"]
    assert (entry["layer"], entry["channels"]) == ("b.bn", [3])
    folded = fuse_conv_bn_eval(model.b.conv.eval(), model.b.bn.eval())
    factor = folded.weight[3].norm() / model.b.conv.weight[3].norm()
    assert entry["largest"] == pytest.approx(factor.item(), rel=1e-4)
    assert entry["largest"] > 100


def test_how_large_a_scale_may_be_is_a_setting() -> None:
    allowed = Policy({"BN015": {"scale": 400.0}})
    assert "BN015" not in findings_of(with_a_faint_filter(), allowed)


def test_statistics_that_become_infinite_in_float16_are_named() -> None:
    model = train(Net(), 60, scale=3000.0)
    finding = findings_of(model)["BN016"]
    assert finding.severity == "warning"
    for layer in LAYERS:
        half = copy.deepcopy(model).half().get_submodule(layer)
        lost = ~(torch.isfinite(half.running_mean) & torch.isfinite(half.running_var))
        named = {
            channel
            for entry in finding.evidence["by_layer"]
            if entry["layer"] == layer
            for channel in entry["channels"]
        }
        assert named == set(np.flatnonzero(lost.numpy()).tolist())
    assert "a.bn" in finding.layers


def test_a_variance_that_underflows_matters_where_eps_does_not_hide_it() -> None:
    hidden, seen = Net(), Net(eps=1e-12)
    for model in (hidden, seen):
        with torch.no_grad():
            model.b.conv.weight[3] *= 1e-5
        model.b.conv.weight.requires_grad_(False)
        train(model, 250)
        assert model.b.bn.running_var.half()[3] == 0 < model.b.bn.running_var[3]
    assert "BN016" not in findings_of(hidden)
    found = [e for e in findings_of(seen)["BN016"].evidence["by_layer"] if "becomes" in e["figure"]]
    assert [(entry["layer"], entry["channels"]) for entry in found] == [("b.bn", [3])]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_named_with_an_error_that_bounds_the_real_one(
    dtype: torch.dtype,
) -> None:
    exact = train(Net(), 60)
    rounded = copy.deepcopy(exact).to(dtype)
    finding = findings_of(rounded)["BN017"]
    assert finding.severity == "warning"
    assert finding.layers == LAYERS
    assert str(dtype).removeprefix("torch.") in finding.sentence
    before, after = state_of(exact), state_of(rounded)
    for name, bound in finding.evidence["rounding_error"].items():
        true, stored = before[name], after[name]
        s, s_hat = (np.sqrt(layer.running_var + layer.eps) for layer in (true, stored))
        mean = (true.running_mean - stored.running_mean) / s_hat
        scale = np.sqrt(true.running_var) * (1 / s_hat - 1 / s)
        shift = np.sqrt(np.mean(mean**2 + scale**2))
        assert 0.1 * bound < shift <= 1.01 * bound


def test_only_the_layers_in_half_precision_are_named() -> None:
    model = train(Net(), 60)
    model.c.bn.half()
    assert findings_of(model)["BN017"].layers == ("c.bn",)
    assert "BN017" not in findings_of(model.double())


def test_layers_kept_in_float32_as_autocast_does_are_fine() -> None:
    model = train(Net(), 60).half()
    fresh = train(Net(), 60)
    for name in LAYERS:
        for buffer in ("running_mean", "running_var"):
            values = getattr(fresh.get_submodule(name), buffer)
            setattr(model.get_submodule(name), buffer, values)
    assert isinstance(model.a.bn, nn.BatchNorm2d)
    assert "BN017" not in findings_of(model)
