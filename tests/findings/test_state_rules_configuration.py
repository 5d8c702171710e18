"""BN018 to BN020: settings that no checkpoint stores, and what they do."""

from __future__ import annotations

import pytest
import torch
from stored_states import LAYERS, Net, batches, findings_of, train
from torch import Tensor, nn
from torch.nn import functional

SETTINGS = {"BN018", "BN019", "BN020"}


def test_a_trained_network_with_the_usual_settings_is_fine() -> None:
    assert not SETTINGS & set(findings_of(train(Net(), 60)))


def change_of_output(bn: nn.BatchNorm2d) -> float:
    """Run the layer on inputs that have its statistics, with either eps."""
    torch.manual_seed(3)
    x = torch.randn(64, bn.num_features, 4, 4, dtype=torch.float64)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    stored = (bn.running_mean.double(), bn.running_var.double())
    x = (x - mean) / variance.sqrt() * stored[1].view(1, -1, 1, 1).sqrt()
    x = x + stored[0].view(1, -1, 1, 1)

    def output(eps: float) -> Tensor:
        return functional.batch_norm(x, *stored, bn.weight.detach().double(), eps=eps)

    small, large = output(1e-5), output(1e-3)
    return ((small - large).pow(2).mean() / small.pow(2).mean()).sqrt().item()


def test_outputs_that_depend_on_eps_are_told_with_the_change_that_they_suffer() -> None:
    model = train(Net(), 60, scale=0.03)
    finding = findings_of(model)["BN018"]
    assert finding.severity == "info"
    assert "a.bn" in finding.layers
    for name, change in finding.evidence["change"].items():
        assert change == pytest.approx(change_of_output(model.get_submodule(name)), rel=1e-6)
        assert (name in finding.layers) == (change > 0.05)


def test_the_eps_in_force_is_told_where_the_model_gives_it() -> None:
    model = train(Net(eps=1e-3), 60, scale=0.03)
    assert "the model has 0.001" in findings_of(model)["BN018"].sentence


def test_a_pruned_channel_does_not_make_a_layer_sensitive() -> None:
    model = train(Net(), 60)
    with torch.no_grad():
        model.b.bn.weight[2] = 0
        model.b.bn.running_var[2] = 0
    assert "BN018" not in findings_of(model)


def test_the_momentum_of_the_other_convention_is_named() -> None:
    model = train(Net(momentum=0.99), 60)
    finding = findings_of(model)["BN019"]
    assert (finding.severity, finding.layers) == ("warning", LAYERS)
    assert "each batch replaces 99% of the statistics" in finding.sentence
    # and it is so: they are nearly those of the last batch
    last = list(batches(60))[-1][0]
    before = train(Net(momentum=0.99), 59)
    x = before.a.conv(last).detach()
    assert torch.allclose(model.a.bn.running_mean, x.mean((0, 2, 3)), atol=0.01)


@pytest.mark.parametrize("momentum", [0.001, 0.1, 0.5, None])
def test_momenta_in_use_are_fine(momentum: float | None) -> None:
    assert "BN019" not in findings_of(train(Net(momentum=momentum), 60))


def test_tracking_that_was_switched_off_is_no_freeze() -> None:
    model = train(Net(), 60)
    model.b.bn.track_running_stats = False
    stored = model.b.bn.running_mean.clone()
    train(model, 5)
    assert torch.equal(model.b.bn.running_mean, stored)  # training no longer updates them
    x, _ = next(batches(1))
    alone, together = model.eval()(x[:1]), model(x)[:1]
    assert torch.allclose(alone, together, atol=1e-5)  # inference uses them
    finding = findings_of(model)["BN020"]
    assert (finding.severity, finding.layers) == ("warning", ("b.bn",))


def test_layers_that_were_built_without_tracking_are_another_matter() -> None:
    found = findings_of(train(Net(track_running_stats=False), 5))
    assert "BN020" not in found
    assert found["BN006"].layers == LAYERS
