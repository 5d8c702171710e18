"""BN004 and BN006 to BN008: statistics that data have never, or hardly, entered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stored_states import LAYERS, Block, Net, batches, findings_of, state_of, train
from torch import nn

from bnaudit.findings.policy import Policy
from bnaudit.results.state import State


def forwards(model: nn.Module, count: int, *, zeros: bool = False) -> nn.Module:
    model.train()
    with torch.no_grad():
        for x, _ in batches(count):
            model(torch.zeros_like(x) if zeros else x)
    return model


def test_a_layer_that_was_never_updated_is_named() -> None:
    model = train(Net(), 60)
    model.d = Block(8, bias=False)
    finding = findings_of(model)["BN004"]
    assert finding.severity == "error"
    assert finding.layers == ("d.bn",)
    assert finding.sentence == "Layer d.bn still holds mean 0 and variance 1 in every channel."


def test_a_file_without_buffers_leaves_all_layers_as_they_were_made(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(dict(train(Net(), 60).named_parameters()), file)
    model = Net()
    model.load_state_dict(torch.load(file, weights_only=True), strict=False)
    found = findings_of(state_of(model, str(file)))
    assert found["BN004"].layers == LAYERS
    assert found["BN004"].command.startswith(f"bnaudit recalibrate {file} ")
    assert not {"BN005", "BN007", "BN008"} & set(found)


def test_a_layer_whose_count_went_on_without_it_says_so() -> None:
    sentence = findings_of(forwards(Net(momentum=0.0), 5))["BN004"].sentence
    assert "although up to 5 batches were counted" in sentence


def test_no_command_is_given_for_a_model_that_lies_in_no_file() -> None:
    assert findings_of(state_of(Net(), "Net"))["BN004"].command is None


def test_one_channel_that_moved_is_enough_to_have_been_updated() -> None:
    model = Net()
    model.a.bn.running_mean[0] = 0.1
    assert findings_of(model)["BN004"].layers == ("b.bn", "c.bn")


def test_layers_without_statistics_are_named() -> None:
    model = train(Net(), 60)
    model.b.bn = nn.BatchNorm2d(8, track_running_stats=False)
    finding = findings_of(model)["BN006"]
    assert finding.layers == ("b.bn",)
    assert finding.sentence == "Layer b.bn has no running statistics."
    assert "BN006" not in findings_of(train(Net(), 60))


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 20), (0.01, 100), (0.001, 200)])
def test_initial_values_that_still_weigh_are_told_with_their_weight(
    momentum: float, steps: int
) -> None:
    finding = findings_of(forwards(Net(momentum=momentum), steps))["BN007"]
    assert finding.severity == "warning"
    assert finding.layers == LAYERS
    weight = finding.evidence["initial_weight"]["b.bn"]
    assert weight == pytest.approx((1 - momentum) ** steps)
    # the same from the definition: the mean of inputs that are 1 tends to 1 - weight
    bn = nn.BatchNorm1d(1, momentum=momentum).double()
    for _ in range(steps):
        bn(torch.ones(4, 1, dtype=torch.float64))
    assert 1 - bn.running_mean.item() == pytest.approx(weight)


def test_a_network_that_is_warmed_up_is_not_said_to_be_cold() -> None:
    assert "BN007" not in findings_of(forwards(Net(), 60))


def test_where_only_a_file_is_known_nobody_can_tell_how_warm_it_is() -> None:
    state = state_of(forwards(Net(), 20))
    layers = tuple(replace(layer, momentum=None) for layer in state.layers)
    assert "BN007" not in findings_of(State(state.source, layers))


def test_the_weight_that_is_allowed_is_a_setting() -> None:
    model = forwards(Net(), 20)  # 0.9^20 = 0.12
    assert "BN007" not in findings_of(model, Policy({"BN007": {"initial_weight": 0.2}}))


@pytest.mark.parametrize(("momentum", "count"), [(0.1, 1), (0.1, 3), (0.1, 30), (0.03, 7)])
@pytest.mark.parametrize("known", [True, False])
def test_forwards_on_zeros_in_train_mode_are_counted(
    momentum: float, count: int, known: bool
) -> None:
    state = state_of(forwards(Net(momentum=momentum), count, zeros=True))
    if not known:
        layers = tuple(
            replace(layer, momentum=None, num_batches_tracked=None) for layer in state.layers
        )
        state = State(state.source, layers)
    found = findings_of(state)
    finding = found["BN008"]
    assert finding.severity == "error"
    assert finding.layers == LAYERS
    assert [entry["forwards"] for entry in finding.evidence["by_layer"]] == [count] * 3
    assert "BN007" not in found  # this explains it better


def test_a_dummy_forward_is_told_although_the_momentum_was_set_after_it() -> None:
    model = forwards(Net(), 1, zeros=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    finding = findings_of(model)["BN008"]
    assert "0.9 = 0.9^1" in finding.sentence


def test_a_bias_in_front_moves_the_means_and_hides_nothing_of_the_first_layer() -> None:
    finding = findings_of(forwards(Net(bias=True), 4, zeros=True))["BN008"]
    assert finding.layers[0] == "a.bn"
    bias = Net(bias=True).a.conv.bias.abs().max().item()
    largest = finding.evidence["by_layer"][0]["largest_mean"]
    assert largest == pytest.approx(bias * (1 - 0.9**4), rel=1e-5)


def test_one_variance_that_is_no_power_is_a_warning() -> None:
    model = forwards(Net(momentum=0.37), 1, zeros=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    finding = findings_of(model)["BN008"]
    assert finding.severity == "warning"
    assert "0.63" in finding.sentence
    assert "which no data leave" in finding.sentence


def test_layers_that_training_skipped_after_a_dummy_forward_are_the_ones_named() -> None:
    model = forwards(Net(), 1, zeros=True)
    model.c.bn.eval()
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    for x, labels in batches(60):
        model.a.train(), model.b.train()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    assert findings_of(model)["BN008"].layers == ("c.bn",)


@pytest.mark.parametrize("count", [1, 5, 60])
def test_forwards_on_data_are_no_dummies(count: int) -> None:
    assert "BN008" not in findings_of(forwards(Net(), count))


def test_a_layer_whose_inputs_are_all_zero_is_dead_not_a_dummy() -> None:
    model = Net()
    nn.init.zeros_(model.b.conv.weight)
    forwards(model, 400)
    found = findings_of(model)
    assert "BN008" not in found
    assert "b.bn" in found["BN012"].layers
