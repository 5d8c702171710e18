"""Statistics that moved under weights that did not: BN051."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lineages import child_of, concluded, copied, findings, lineage, lineage_of_files, trained
from stored_states import LAYERS, Net, batches
from torch import nn
from torch.nn import functional

from bnaudit.checkpoints.network_lineage import RECORD
from bnaudit.checkpoints.patch import patch_checkpoint


def train_head(net: Net, *, scale: float, steps: int = 40) -> Net:
    """The linear layer trained on other data, everything else without gradients."""
    optimiser = torch.optim.SGD(net.linear.parameters(), 0.05)
    for x, labels in batches(steps, scale=scale):
        optimiser.zero_grad()
        functional.cross_entropy(net(x), labels).backward()
        optimiser.step()
    return net


def test_a_frozen_backbone_in_train_mode_drifts(tmp_path: Path) -> None:
    parent = trained()
    child = train_head(child_of(parent).train(), scale=1.7)
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN051"]
    assert found["BN051"].layers == LAYERS
    assert found["BN051"].severity == "warning"
    assert "40 batches went through in train mode" in found["BN051"].sentence
    assert not found["BN051"].evidence["weights_equal"]


def test_a_frozen_backbone_in_eval_mode_does_not_drift(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent).eval()
    child.linear.train()
    assert not findings(tmp_path, train_head(child, scale=1.7), parent)


def test_forwards_in_train_mode_over_other_data_are_told(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent).train()
    with torch.no_grad():
        for x, _ in batches(25, scale=0.4):
            child(x)
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN051"]
    assert "every weight of the network is the same" in found["BN051"].sentence
    assert "25 batches" in found["BN051"].sentence


def test_only_the_layers_before_what_was_trained_are_called_drifted(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent).train()
    optimiser = torch.optim.SGD([*child.c.parameters(), *child.linear.parameters()], 0.1)
    for x, labels in batches(60, scale=1.7):
        optimiser.zero_grad()
        functional.cross_entropy(child(x), labels).backward()
        optimiser.step()
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN051"]
    assert found["BN051"].layers == ("a.bn", "b.bn")


def test_the_one_layer_whose_statistics_were_written_is_named(tmp_path: Path) -> None:
    parent = trained()
    state = copied(parent)
    state["b.bn.running_mean"] += 0.3 * torch.randn(8)
    found = findings(tmp_path, state, parent)
    assert list(found) == ["BN051"]
    assert found["BN051"].layers == ("b.bn",)
    assert "so are the counters" in found["BN051"].sentence


def test_moving_less_than_the_noise_of_an_average_is_information(tmp_path: Path) -> None:
    parent = trained()
    state = copied(parent)
    state["b.bn.running_var"] *= 1.01
    found = findings(tmp_path, state, parent)
    assert [(f.code, f.severity) for f in found.values()] == [("BN051", "info")]


def with_a_pruned_channel(net: Net) -> dict[str, torch.Tensor]:
    """Channel 5 of the second layer switched off, as pruning and weight decay leave it."""
    state = copied(net)
    state["b.bn.weight"][5] = 0.0
    state["b.bn.running_var"][5] = 1e-6
    return state


def test_a_pruned_channel_that_moved_a_little_is_no_warning(tmp_path: Path) -> None:
    parent = with_a_pruned_channel(trained())
    child = {name: value.clone() for name, value in parent.items()}
    child["b.bn.running_mean"][5] += 1e-3
    found = lineage(tmp_path, child, parent)
    assert found.layers[1].distance.total > 0.1  # 1e-3/√(1e-6 + 1e-5), over 8 channels
    assert found.layers[1].output_distance.total < 1e-12
    assert [(f.code, f.severity) for f in concluded(found).values()] == [("BN051", "info")]
    assert "gamma is 0" in concluded(found)["BN051"].sentence


def test_the_sentence_has_the_figure_that_was_judged(tmp_path: Path) -> None:
    parent = with_a_pruned_channel(trained())
    child = {name: value.clone() for name, value in parent.items()}
    child["b.bn.running_mean"][4:6] += torch.tensor([0.3, 1e-3])
    gamma, var = (child[f"b.bn.{what}"].double() for what in ("weight", "running_var"))
    expected = 0.3 * float((gamma[4] ** 2 / (var[4] + 1e-5) / (gamma**2).sum()).sqrt())
    found = findings(tmp_path, child, parent)["BN051"]
    assert (found.severity, found.layers) == ("warning", ("b.bn",))
    assert found.evidence["largest_distance"] == pytest.approx(expected, rel=1e-4)
    assert f"by {expected:.3g} standard deviations (means {expected:.3g}, scales 0)" in (
        found.sentence
    )


def test_without_any_gamma_all_channels_count_alike(tmp_path: Path) -> None:
    parent = copied(trained())
    parent["b.bn.weight"].zero_()
    child = {name: value.clone() for name, value in parent.items()}
    child["b.bn.running_mean"] += 0.3 * child["b.bn.running_var"].sqrt()
    found = lineage(tmp_path, child, parent)
    assert found.layers[1].output_distance == found.layers[1].distance
    assert concluded(found)["BN051"].severity == "warning"


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_rounding_is_neither_drift_nor_change(tmp_path: Path, precision: torch.dtype) -> None:
    parent = trained()
    child = {
        name: value.to(precision).to(value.dtype) if value.is_floating_point() else value
        for name, value in copied(parent).items()
    }
    assert not findings(tmp_path, child, parent)


def test_ranks_with_buffers_of_their_own_are_told_apart(tmp_path: Path) -> None:
    parent = trained()
    ranks = [child_of(parent).train() for _ in range(2)]
    with torch.no_grad():
        for i, (x, _) in enumerate(batches(40)):
            ranks[i % 2]((1.0, 1.6)[i % 2] * x)
    found = findings(tmp_path, ranks[1], ranks[0])
    assert list(found) == ["BN051"]
    assert "broadcast or reduce" in found["BN051"].remedy


def test_what_bnaudit_recalibrated_itself_is_information(tmp_path: Path) -> None:
    parent = trained()
    source, target = tmp_path / "net.pt", tmp_path / "net.recalibrated.pt"
    torch.save(copied(parent), source)
    moved = {"b.bn.running_mean": parent.b.bn.running_mean + 0.3 * torch.randn(8)}
    written = patch_checkpoint(source, target, moved, key="", provenance={})
    assert written.sidecar == target.with_name(target.name + RECORD)
    found = concluded(lineage_of_files(target, source))
    assert [(f.code, f.severity) for f in found.values()] == [("BN051", "info")]
    assert "recalibrated" in found["BN051"].sentence
    # A record that belongs to another file says nothing of this one.
    torch.save({**copied(parent), **moved, "extra": torch.zeros(99)}, target)
    assert concluded(lineage_of_files(target, source))["BN051"].severity == "warning"


@pytest.mark.parametrize("counted", [True, False])
def test_batchnorm_that_trains_in_the_last_part_alone_is_fine_tuning(
    tmp_path: Path, counted: bool
) -> None:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)) for _ in range(6)]
    parent = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    optimiser = torch.optim.SGD(parent.parameters(), 0.05)
    states = []
    for frozen in (0, 5):
        for block in blocks[:frozen]:
            block.eval()
        for x, labels in batches(40):
            optimiser.zero_grad()
            functional.cross_entropy(parent(x), labels).backward()
            optimiser.step()
        states.append(copied(parent))
    if not counted:
        states = [{k: v for k, v in s.items() if "num_batches" not in k} for s in states]
    before, after = states
    found = findings(tmp_path, after, before)
    assert list(found) == ["BN050"]
    assert found["BN050"].layers == tuple(f"{i}.1" for i in range(5))
    # The same change in the middle, which no training makes.
    after["2.1.running_mean"] += 1.0
    found = findings(tmp_path, after | {k: before[k] for k in before if k[:4] == "5.1."}, before)
    assert found["BN051"].layers == ("2.1",)
