"""BN001 to BN003 on networks whose statistics were really broken."""

from __future__ import annotations

import numpy as np
import torch
from stored_states import LAYERS, Net, batches, findings_of, state_of, train


def channels_by_layer(finding) -> dict[str, list[int]]:
    return {entry["layer"]: entry["channels"] for entry in finding.evidence["by_layer"]}


def test_one_infinite_input_in_training_is_seen_in_every_layer_behind_it() -> None:
    model = train(Net(), 60)
    x, _ = next(batches(1))
    x[3, 1, 4, 4] = torch.inf
    model.train()(x)
    finding = findings_of(model)["BN001"]
    assert finding.severity == "error"
    assert finding.layers == LAYERS
    state = state_of(model)
    broken = {
        layer.name: np.flatnonzero(~np.isfinite(layer.running_mean + layer.running_var)).tolist()
        for layer in state.layers
    }
    assert channels_by_layer(finding) == broken
    assert "24 channels in all 3 layers" in finding.sentence
    assert finding.command == (
        "bnaudit recalibrate net.pt --model MODEL --data DATA --transform TRANSFORM"
    )


def test_what_is_wrong_with_some_channels_of_one_layer_names_that_layer() -> None:
    model = train(Net(), 60)
    model.b.bn.running_var[5] = torch.nan
    finding = findings_of(model)["BN001"]
    assert channels_by_layer(finding) == {"b.bn": [5]}
    assert finding.sentence == "1 channel in layer b.bn holds NaN or infinite statistics."


def test_a_trained_network_has_no_broken_values() -> None:
    assert not {"BN001", "BN002", "BN003"} & set(findings_of(train(Net(), 60)))


def extrapolated(by: float) -> Net:
    """Beyond the trained network, away from the fresh one: all of the state, buffers too."""
    fresh, trained, model = Net(), train(Net(), 60), Net()
    state = {
        key: value + by * (value - fresh.state_dict()[key]) if value.is_floating_point() else value
        for key, value in trained.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def test_weights_that_were_extrapolated_leave_negative_variances() -> None:
    model = extrapolated(3.0)
    negative = {
        layer.name: np.flatnonzero(layer.running_var < 0).tolist()
        for layer in state_of(model).layers
        if (layer.running_var < 0).any()
    }
    assert negative
    finding = findings_of(model)["BN002"]
    assert finding.severity == "error"
    assert channels_by_layer(finding) == negative


def test_weights_that_were_interpolated_do_not() -> None:
    assert "BN002" not in findings_of(extrapolated(-0.5))


def with_a_constant_channel(eps: float) -> Net:
    model = Net(momentum=1.0)
    with torch.no_grad():
        model.b.conv.weight[2] = 0
    x, _ = next(batches(1))
    with torch.no_grad():
        model.train()(x)
    for name in LAYERS:
        model.get_submodule(name).eps = eps  # torch refuses to train with an eps of 0
    return model


def test_no_variance_and_no_eps_is_a_division_by_zero() -> None:
    finding = findings_of(with_a_constant_channel(0.0))["BN003"]
    assert finding.severity == "error"
    assert "b.bn" in finding.layers
    assert 2 in channels_by_layer(finding)["b.bn"]
    assert "eps" in finding.remedy
    assert finding.command is None  # new statistics do not help, another eps does


def test_with_an_eps_it_is_a_dead_channel_and_nothing_worse() -> None:
    found = findings_of(with_a_constant_channel(1e-5))
    assert "BN003" not in found
    assert channels_by_layer(found["BN012"])["b.bn"] == [2]
