"""BN012 to BN014: channels and layers that contribute next to nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from stored_states import Net, findings_of, state_of, train
from torch import Tensor, nn

from bnaudit.findings.policy import Policy
from bnaudit.results.state import State


def channels_by_layer(finding) -> dict[str, list[int]]:
    return {entry["layer"]: entry["channels"] for entry in finding.evidence["by_layer"]}


def with_faint_channels() -> Net:
    """Filters of the second block that nothing, or hardly anything, goes through."""
    model = Net()
    with torch.no_grad():
        model.b.conv.weight[[1, 6]] = 0
        model.b.conv.weight[3] *= 3e-3
    model.b.conv.weight.requires_grad_(False)
    return train(model, 200)


def test_channels_without_variance_are_counted_and_named() -> None:
    model = with_faint_channels()
    finding = findings_of(model)["BN012"]
    variance = model.b.bn.running_var.numpy()
    assert channels_by_layer(finding) == {"b.bn": np.flatnonzero(variance < 1e-5).tolist()}
    assert channels_by_layer(finding) == {"b.bn": [1, 3, 6]}
    assert finding.severity == "info"
    assert finding.sentence.startswith("3 channels of 24 have a variance below eps (eps = 1e-05)")


def test_an_eps_that_was_assumed_is_said_to_be() -> None:
    state = state_of(with_faint_channels())
    layers = tuple(replace(layer, eps_known=False) for layer in state.layers)
    assert "eps = 1e-05, assumed" in findings_of(State("x.pt", layers))["BN012"].sentence


def test_the_multiple_of_eps_is_a_setting() -> None:
    model = train(Net(), 60)
    assert "BN012" not in findings_of(model)
    variance = model.c.bn.running_var.numpy()
    multiple = float(np.median(variance)) / 1e-5
    found = findings_of(model, Policy({"BN012": {"multiple_of_eps": multiple}}))
    expected = np.flatnonzero(variance.astype(np.float64) < multiple * 1e-5).tolist()
    assert channels_by_layer(found["BN012"])["c.bn"] == expected


def test_channels_that_were_pruned_by_their_gamma_are_information() -> None:
    model = train(Net(), 60)
    with torch.no_grad():
        model.b.bn.weight[[0, 4]] = torch.tensor([0.0, -1e-6])
    finding = findings_of(model)["BN013"]
    assert finding.severity == "info"
    assert channels_by_layer(finding) == {"b.bn": [0, 4]}
    assert "2 channels of 24" in finding.sentence


def test_a_trained_network_has_no_channel_without_gamma() -> None:
    assert not {"BN013", "BN014"} & set(findings_of(train(Net(), 60)))


class Residual(Net):
    """The second block is a branch that can be done without."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = x + self.b.bn(self.b.conv(x))
        return self.linear(self.pool(self.c(x)))


def trained_with_decay(decay: float) -> Residual:
    model = Residual()
    branch = [model.b.bn.weight]
    others = [p for p in model.parameters() if p is not model.b.bn.weight]
    groups = [{"params": branch, "weight_decay": decay}, {"params": others, "weight_decay": 5e-4}]
    return train(model, 100, optimiser=torch.optim.SGD(groups, 0.05))


def test_weight_decay_on_gamma_that_is_too_strong_makes_it_collapse() -> None:
    model = trained_with_decay(10.0)
    assert model.b.bn.weight.abs().median() < 1e-2
    found = findings_of(model)
    assert found["BN014"].severity == "warning"
    assert found["BN014"].layers == ("b.bn",)
    assert found["BN014"].sentence.startswith("Layer b.bn has |gamma| below 0.0")
    assert "BN013" not in found  # the collapse explains these channels


def test_ordinary_weight_decay_does_not() -> None:
    assert "BN014" not in findings_of(trained_with_decay(5e-4))


def test_a_branch_that_starts_at_zero_and_was_not_trained_has_not_collapsed() -> None:
    model = Residual()
    nn.init.zeros_(model.b.bn.weight)
    assert "BN014" not in findings_of(model)


@pytest.mark.parametrize("affine", [True, False])
def test_layers_without_gamma_are_not_asked_for_it(affine: bool) -> None:
    found = findings_of(train(Net(affine=affine), 60))
    assert not found
