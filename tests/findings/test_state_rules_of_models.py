"""The state of a model in memory, and of the same model in a file: what is known of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from stored_states import LAYERS, Net, batches, findings_of, state_of, train
from torch import nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from bnaudit.checkpoints.contents import read_contents
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.results.state import State


def state_of_file(contents: object, file: Path) -> State:
    torch.save(contents, file)
    return state_of_contents(read_contents(file))


def test_the_state_of_a_model_is_a_copy_with_what_only_the_model_knows() -> None:
    model = train(Net(eps=1e-3, momentum=0.05), 60)
    state = state_of(model)
    before = state["b.bn"].running_var.copy()
    train(model, 5)
    assert np.array_equal(state["b.bn"].running_var, before)
    layer = state_of(model)["b.bn"]
    assert np.array_equal(layer.running_var, model.b.bn.running_var.double().numpy())
    assert np.array_equal(layer.gamma, model.b.bn.weight.detach().double().numpy())
    assert (layer.eps, layer.eps_known, layer.momentum) == (1e-3, True, 0.05)
    assert (layer.tracks, layer.kind, layer.dtype) == (True, "BatchNorm2d", "float32")
    assert layer.num_batches_tracked == 65


def test_folding_agrees_with_what_the_layer_does() -> None:
    model = train(Net(), 60).eval()
    layer = state_of(model)["b.bn"]
    x = torch.randn(4, 8, 5, 5)
    folded = x.double().numpy() * layer.scale[:, None, None] + layer.offset[:, None, None]
    assert np.allclose(folded, model.b.bn(x).detach().numpy(), atol=1e-5)


def test_frozen_layers_have_a_state_and_others_than_batch_norm_have_none() -> None:
    model = train(Net(), 60)
    model.b.bn = FrozenBatchNorm2d(8)
    model.c.bn = nn.InstanceNorm2d(8, track_running_stats=True)
    state = state_of(model)
    assert [layer.name for layer in state.layers] == ["a.bn", "b.bn"]
    frozen = state["b.bn"]
    assert (frozen.num_batches_tracked, frozen.momentum, frozen.tracks) == (None, None, None)


def test_the_same_network_is_judged_alike_in_memory_and_in_a_file(tmp_path: Path) -> None:
    model = Net()
    model.train()
    with torch.no_grad():
        model(torch.zeros(2, 3, 8, 8))
    model.b.bn.half()
    model.c.bn.running_mean[1] = torch.inf
    held = findings_of(state_of(model))
    stored = findings_of(state_of_file(model.state_dict(), tmp_path / "net.pt"))
    alike = {"BN001", "BN008", "BN017"}
    assert set(stored) == alike
    assert set(held) == alike | {"BN007"}  # no file tells the momentum
    for code in alike:
        assert stored[code].sentence == held[code].sentence
        assert stored[code].evidence == held[code].evidence


def test_an_average_of_state_dicts_is_told_from_its_file(tmp_path: Path) -> None:
    one, other = train(Net(), 60).state_dict(), train(Net(), 63).state_dict()
    average = {key: (one[key] + other[key]) / 2 for key in one}
    found = findings_of(state_of_file({"state_dict": average}, tmp_path / "average.pt"))
    assert found["BN010"].layers == LAYERS


def test_gradient_accumulation_is_told_from_a_file_with_its_optimiser(tmp_path: Path) -> None:
    model = Net()
    optimiser = torch.optim.Adam(model.parameters())
    for number, (x, labels) in enumerate(batches(60), start=1):
        functional.cross_entropy(model.train()(x), labels).backward()
        if number % 4 == 0:
            optimiser.step()
            optimiser.zero_grad()
    contents = {"model": model.state_dict(), "optimizer": optimiser.state_dict()}
    found = findings_of(state_of_file(contents, tmp_path / "run.pt"))
    assert found["BN011"].evidence == {"batches": 60.0, "steps": 15, "ratio": 4.0}


def test_a_file_of_parameters_alone_misses_its_statistics(tmp_path: Path) -> None:
    parameters = dict(train(Net(), 60).named_parameters())
    found = findings_of(state_of_file(parameters, tmp_path / "parameters.pt"))
    assert set(found) == {"BN006"}
    assert found["BN006"].layers == LAYERS
