"""Weights that changed under statistics that did not: BN050."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lineages import child_of, concluded, copied, findings, lineage, trained
from stored_states import LAYERS, Net, batches, train
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from bnaudit.findings.policy import Policy


def frozen_norm(net: Net) -> list[torch.nn.Parameter]:
    """The parameters of everything but BatchNorm, whose layers are put in eval mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return [p for name, p in net.named_parameters() if ".bn." not in name]


def fine_tuned(net: Net, parameters: list[torch.nn.Parameter], steps: int = 40) -> Net:
    """Trained on without touching the mode of any module."""
    optimiser = torch.optim.SGD(parameters, 0.05, momentum=0.9)
    for x, labels in batches(steps):
        optimiser.zero_grad()
        functional.cross_entropy(net(x), labels).backward()
        optimiser.step()
    return net


def test_weights_that_were_averaged_leave_the_last_statistics_behind(tmp_path: Path) -> None:
    net = trained(40)
    average = AveragedModel(net)
    for _ in range(5):
        train(net, 8, optimiser=torch.optim.SGD(net.parameters(), 0.3))
        average.update_parameters(net)
    found = findings(tmp_path, average, net)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == tuple(f"module.{name}" for name in LAYERS)
    assert found["BN050"].evidence["cause"] == "averaged"
    assert "n_averaged = 5" in found["BN050"].sentence
    assert found["BN050"].severity == "warning"
    assert found["BN050"].command is not None
    assert found["BN050"].command.startswith("bnaudit recalibrate ")


@pytest.mark.parametrize("made_permanent", [True, False], ids=["zeros", "mask"])
def test_a_network_that_was_pruned_is_called_so(tmp_path: Path, made_permanent: bool) -> None:
    parent = trained()
    child = child_of(parent)
    for block in (child.b, child.c):
        prune.l1_unstructured(block.conv, "weight", amount=0.6)
        if made_permanent:
            prune.remove(block.conv, "weight")
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == ("b.bn", "c.bn")
    assert found["BN050"].evidence["cause"] == "pruned"


@pytest.mark.parametrize("bits", [4, 8])
def test_a_network_whose_weights_were_quantised_is_called_so(tmp_path: Path, bits: int) -> None:
    parent = trained()
    child = child_of(parent)
    for block in (child.a, child.b, child.c):
        weight = block.conv.weight.data
        step = weight.abs().amax((1, 2, 3), keepdim=True) / (2 ** (bits - 1) - 1)
        block.conv.weight.data = torch.round(weight / step) * step
    found = concluded(lineage(tmp_path, child, parent), Policy({"BN050": {"change": 0.002}}))
    assert list(found) == ["BN050"]
    assert found["BN050"].evidence["cause"] == "quantised"
    assert found["BN050"].severity == "warning"


def test_weights_that_became_integers_are_called_quantised(tmp_path: Path) -> None:
    parent = trained()
    state = copied(parent)
    weight = state["b.conv.weight"]
    state["b.conv.weight"] = (127 * weight / weight.abs().max()).round().to(torch.int8)
    found = findings(tmp_path, state, parent)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == ("b.bn", "c.bn")


def test_training_on_with_frozen_batchnorm_is_told_with_its_caveat(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent).train()
    fine_tuned(child, frozen_norm(child))
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == LAYERS
    assert "BatchNorm frozen" in found["BN050"].sentence
    assert "recalibration can hurt" in found["BN050"].remedy


def test_a_change_in_the_middle_leaves_what_comes_before_alone(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent)
    child.b.conv.weight.data += 0.1 * torch.randn_like(child.b.conv.weight)
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == ("b.bn", "c.bn")
    assert found["BN050"].evidence["changed_at"] == ["b.bn"]


def test_a_changed_gamma_makes_the_layers_behind_it_stale_not_its_own(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent)
    child.a.bn.weight.data *= 1.5
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == ("b.bn", "c.bn")


def test_a_new_head_makes_no_statistics_stale(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent).eval()
    fine_tuned(child, list(child.linear.parameters()))
    assert not torch.equal(child.linear.weight, parent.linear.weight)
    assert not findings(tmp_path, child, parent)
    child.linear = nn.Linear(8, 17)
    assert not findings(tmp_path, child, parent)


def test_fine_tuning_all_of_a_network_is_nothing_to_report(tmp_path: Path) -> None:
    parent = trained()
    child = train(child_of(parent), 60)
    assert not findings(tmp_path, child, parent)


def test_a_small_change_of_weights_is_information(tmp_path: Path) -> None:
    parent = trained()
    state = copied(parent)
    state["b.conv.weight"] *= 1.002
    found = findings(tmp_path, state, parent)
    assert [(f.code, f.severity) for f in found.values()] == [("BN050", "info")]
    assert found["BN050"].command is None


def test_layers_that_never_had_statistics_are_not_stale(tmp_path: Path) -> None:
    parent = Net()
    child = child_of(parent)
    child.a.conv.weight.data += 0.1
    assert not findings(tmp_path, child, parent)


def test_a_file_without_order_is_judged_by_what_feeds_each_layer(tmp_path: Path) -> None:
    from lineages import lineage_of_files
    from safetensors.torch import save_file

    parent = trained()
    child = child_of(parent)
    child.b.conv.weight.data += 0.1 * torch.randn_like(child.b.conv.weight)
    child.linear.weight.data += 1.0
    paths = tmp_path / "child.safetensors", tmp_path / "parent.safetensors"
    for path, net in zip(paths, (child, parent), strict=True):
        save_file(copied(net), path)
    unordered = lineage_of_files(*paths)
    assert not unordered.network.ordered
    found = concluded(unordered)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == ("b.bn",)
    # One of the two that has an order is enough.
    torch.save(copied(parent), tmp_path / "parent.pt")
    ordered = lineage_of_files(paths[0], tmp_path / "parent.pt")
    assert concluded(ordered)["BN050"].layers == ("b.bn", "c.bn")
