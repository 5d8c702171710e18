"""BN005 and BN009 to BN011: what the counts of batches give away."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from stored_states import LAYERS, Block, Net, batches, findings_of, state_of, train
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

COUNTERS = {"BN005", "BN009", "BN010", "BN011"}


def test_a_network_that_was_trained_in_one_go_has_sound_counts() -> None:
    assert not COUNTERS & set(findings_of(train(Net(), 60)))


def test_statistics_that_were_loaded_without_their_counts_are_information() -> None:
    state = train(Net(), 60).state_dict()
    model = Net()
    kept = {key: value for key, value in state.items() if "num_batches" not in key}
    model.load_state_dict(kept, strict=False)
    found = findings_of(model)
    assert set(found) == {"BN005"}
    assert found["BN005"].severity == "info"
    assert found["BN005"].layers == LAYERS
    assert "a count of 0 batches" in found["BN005"].sentence


def test_a_count_that_is_not_stored_is_information_too() -> None:
    model = train(Net(), 60)
    model.b.bn.num_batches_tracked = None
    finding = findings_of(model)["BN005"]
    assert finding.layers == ("b.bn",)
    assert "no count of batches" in finding.sentence


class Checkpointed(Net):
    """The second block is run again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.b, self.a(x), use_reentrant=False)
        return self.linear(self.pool(self.c(x)))


def test_activation_checkpointing_counts_twice_and_is_only_information() -> None:
    found = findings_of(train(Checkpointed(), 60))
    finding = found["BN009"]
    assert finding.severity == "info"
    assert finding.layers == ("b.bn",)
    assert finding.evidence == {"usual": 60.0, "count": 120.0, "ratio": 2.0}
    assert finding.sentence == (
        "Layer b.bn counted 120 batches, the others 60; twice the usual: called twice a forward, "
        "or run again by activation checkpointing."
    )


class MostlyCheckpointed(Net):
    """All blocks but the first are run again."""

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(nn.Sequential(self.b, self.c), self.a(x), use_reentrant=False)
        return self.linear(self.pool(x))


def test_the_one_layer_that_is_not_checkpointed_is_only_information_either() -> None:
    finding = findings_of(train(MostlyCheckpointed(), 60))["BN009"]
    assert (finding.severity, finding.layers) == ("info", ("a.bn",))
    assert "counted 60 batches, the others 120; half of the usual" in finding.sentence


class Reused(Net):
    """The second block is called three times a forward."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.b(self.b(self.a(x))))
        return self.linear(self.pool(self.c(x)))


def test_a_layer_that_is_called_three_times_a_forward_counts_so() -> None:
    finding = findings_of(train(Reused(), 60))["BN009"]
    assert (finding.severity, finding.layers) == ("info", ("b.bn",))
    assert "counted 180 batches, the others 60; 3 times the usual" in finding.sentence


class Skipping(Net):
    """Every third forward leaves the second block out."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.a(x)
        x = self.b(x) if self.calls % 3 else x
        return self.linear(self.pool(self.c(x)))


def test_a_layer_that_some_forwards_skip_is_a_warning() -> None:
    finding = findings_of(train(Skipping(), 60))["BN009"]
    assert (finding.severity, finding.layers) == ("warning", ("b.bn",))
    assert "counted 40 batches, the others 60" in finding.sentence


def test_new_layers_behind_pretrained_ones_are_information() -> None:
    model = train(Net(), 77)
    model.b, model.c = Block(8, bias=False), Block(8, bias=False)
    finding = findings_of(train(model, 60))["BN009"]
    assert (finding.severity, finding.layers) == ("info", ("a.bn",))
    assert "counted 137 batches, the others 60" in finding.sentence
    assert "new layers behind pretrained ones" in finding.sentence


def test_layers_in_front_that_were_frozen_for_a_while_are_not_called_new_ones_behind() -> None:
    model = train(Net(), 77)
    model.a.bn.eval()
    model.a.bn.train = lambda mode=True: model.a.bn  # type: ignore[method-assign]
    finding = findings_of(train(model, 60))["BN009"]
    assert (finding.severity, finding.layers) == ("info", ("a.bn",))
    assert "counted 77 batches, the others 137" in finding.sentence
    assert "frozen for a while" in finding.sentence
    assert "behind" not in finding.sentence


def average(*models: nn.Module) -> dict[str, Tensor]:
    """As scripts do it: every entry of the state dicts, counts included."""
    states = [model.state_dict() for model in models]
    return {key: sum(state[key] for state in states) / len(states) for key in states[0]}


def test_the_average_of_checkpoints_is_seen_by_its_counts() -> None:
    model = Net()
    model.load_state_dict(average(train(Net(), 60), train(Net(), 63)), assign=True)
    finding = findings_of(model)["BN010"]
    assert finding.severity == "warning"
    assert finding.layers == LAYERS
    assert "(61.5 in a.bn)" in finding.sentence
    assert finding.evidence["counts"] == dict.fromkeys(LAYERS, 61.5)


def test_averages_that_pytorch_rounds_to_integers_cannot_be_told() -> None:
    averaged = AveragedModel(train(Net(), 60), use_buffers=True)
    averaged.update_parameters(train(Net(), 60))
    averaged.update_parameters(train(Net(), 63))
    assert "BN010" not in findings_of(averaged.module)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_gradient_accumulation_counts_more_batches_than_steps(micro_batches: int) -> None:
    model = Net()
    optimiser = torch.optim.Adam(model.parameters())
    for number, (x, labels) in enumerate(batches(60), start=1):
        functional.cross_entropy(model.train()(x), labels).backward()
        if number % micro_batches == 0:
            optimiser.step()
            optimiser.zero_grad()
    steps = int(optimiser.state_dict()["state"][0]["step"])
    found = findings_of(replace(state_of(model), steps=steps))
    if micro_batches == 1:
        assert "BN011" not in found
        return
    assert found["BN011"].severity == "info"
    assert found["BN011"].evidence == {"batches": 60.0, "steps": 15, "ratio": 4.0}
