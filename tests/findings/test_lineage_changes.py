"""Layers that were reset, rounded, or are in one file only: BN053 to BN055."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lineages import (
    RESNET20,
    child_of,
    concluded,
    copied,
    findings,
    lineage,
    lineage_of_files,
    needs_resnet20,
    trained,
)
from stored_states import LAYERS
from torch import Tensor, nn


def test_a_layer_that_was_reset_is_named_and_nothing_else(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent)
    child.b.bn.reset_running_stats()
    found = findings(tmp_path, child, parent)
    assert [(f.code, f.severity) for f in found.values()] == [("BN053", "error")]
    assert found["BN053"].layers == ("b.bn",)


def test_a_reset_layer_behind_changed_weights_is_not_called_stale(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent)
    child.a.conv.weight.data *= 1.2
    child.b.bn.reset_running_stats()
    found = findings(tmp_path, child, parent)
    assert {code: f.layers for code, f in found.items()} == {
        "BN053": ("b.bn",),
        "BN050": ("a.bn", "c.bn"),
    }


def test_a_layer_that_never_had_statistics_was_not_reset(tmp_path: Path) -> None:
    parent = trained()
    parent.b.bn.reset_running_stats()
    assert not findings(tmp_path, child_of(parent), parent)


def test_a_copy_in_half_precision_is_told_with_what_the_rounding_made(tmp_path: Path) -> None:
    parent = trained()
    found = findings(tmp_path, child_of(parent).half(), parent)
    assert [(f.code, f.severity) for f in found.values()] == [("BN054", "warning")]
    assert found["BN054"].layers == LAYERS
    assert 0 < found["BN054"].evidence["distance"] < 1e-3
    assert "were float32 and are float16" in found["BN054"].sentence


def test_what_does_not_fit_into_half_precision_is_named(tmp_path: Path) -> None:
    parent = trained()
    parent.b.bn.running_var *= 1e7
    found = findings(tmp_path, child_of(parent).half(), parent)
    assert found["BN054"].evidence["overflowed"] == ["b.bn"]
    assert "infinite in b.bn" in found["BN054"].sentence


def test_weights_that_do_not_fit_into_half_precision_have_changed(tmp_path: Path) -> None:
    parent = trained()
    with torch.no_grad():
        parent.b.conv.weight[0, 0, 0, :2] = 1e5
    found = lineage(tmp_path, child_of(parent).half(), parent)
    assert not found.weights_equal
    assert found.network.weights.infinite == found.network.weights.changed == 2
    assert found.layers[0].own.equal
    concluded_of_it = concluded(found)
    assert set(concluded_of_it) == {"BN050", "BN054"}
    assert "2 weights became infinite" in concluded_of_it["BN054"].sentence
    assert concluded_of_it["BN054"].evidence["infinite_weights"] == 2
    stale = concluded_of_it["BN050"]
    assert (stale.layers, stale.evidence["cause"]) == (("b.bn", "c.bn"), "overflowed")
    assert "2 weights became infinite" in stale.sentence
    assert stale.command is None  # statistics do not mend weights


def test_going_back_to_float32_is_information(tmp_path: Path) -> None:
    parent = trained().half()
    found = findings(tmp_path, child_of(parent).float(), parent)
    assert [(f.code, f.severity) for f in found.values()] == [("BN054", "info")]


def test_layers_in_one_file_only_or_resized_are_information(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent)
    child.b.bn = nn.Identity()
    child.c.conv = nn.Conv2d(8, 4, 3, bias=False)
    child.c.bn = nn.BatchNorm2d(4)
    child.extra = nn.BatchNorm2d(5)
    found = findings(tmp_path, child, parent)
    assert [(f.code, f.severity) for f in found.values()] == [("BN055", "info")]
    assert found["BN055"].evidence == {"added": ["extra"], "removed": ["b.bn"], "resized": ["c.bn"]}


def test_the_same_network_twice_has_nothing_to_tell(tmp_path: Path) -> None:
    parent = trained()
    wrapped = {f"module.{name}": value for name, value in copied(parent).items()}
    assert not findings(tmp_path, child_of(parent), parent)
    assert not findings(tmp_path, wrapped, parent)
    assert not findings(tmp_path, parent, wrapped)


def resnet20() -> dict[str, Tensor]:
    return dict(torch.load(RESNET20, map_location="cpu", weights_only=True)["state_dict"])


def perturb_weights(state: dict[str, Tensor], block: str = "") -> None:
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if block in name and "conv" in name:
            noise = torch.randn(value.shape, generator=generator)
            state[name] = value + 0.05 * value.std() * noise


def perturb_statistics(state: dict[str, Tensor], layer: str) -> None:
    generator = torch.Generator().manual_seed(1)
    mean = state[f"module.{layer}.running_mean"]
    mean += 0.2 * torch.randn(mean.shape, generator=generator)
    state[f"module.{layer}.running_var"] *= 1.2


def reset(state: dict[str, Tensor], layer: str) -> None:
    state[f"module.{layer}.running_mean"].zero_()
    state[f"module.{layer}.running_var"].fill_(1.0)


def named(state: dict[str, Tensor], folder: Path) -> dict[str, tuple[str, ...]]:
    path = folder / "copy.th"
    torch.save({"state_dict": state}, path)
    found = concluded(lineage_of_files(path, RESNET20))
    return {
        code: tuple(layer.removeprefix("module.") for layer in finding.layers)
        for code, finding in found.items()
    }


@pytest.mark.shared
@needs_resnet20
def test_the_three_copies_of_resnet20_get_the_three_diagnoses(tmp_path: Path) -> None:
    every = [name for name in resnet20() if name.endswith("running_mean")]
    layers = tuple(name.removeprefix("module.").removesuffix(".running_mean") for name in every)
    weights = resnet20()
    perturb_weights(weights)
    assert named(weights, tmp_path) == {"BN050": layers}
    statistics = resnet20()
    for layer in layers:
        perturb_statistics(statistics, layer)
    assert named(statistics, tmp_path) == {"BN051": layers}
    one_reset = resnet20()
    reset(one_reset, "layer2.1.bn2")
    assert named(one_reset, tmp_path) == {"BN053": ("layer2.1.bn2",)}


@pytest.mark.shared
@needs_resnet20
def test_one_copy_of_resnet20_gets_all_three_each_with_its_layers(tmp_path: Path) -> None:
    state = resnet20()
    perturb_weights(state, "layer3.1")
    perturb_statistics(state, "layer1.1.bn1")
    reset(state, "layer2.2.bn2")
    assert named(state, tmp_path) == {
        "BN053": ("layer2.2.bn2",),
        "BN050": ("layer3.1.bn1", "layer3.1.bn2", "layer3.2.bn1", "layer3.2.bn2"),
        "BN051": ("layer1.1.bn1",),
    }


@pytest.mark.shared
@needs_resnet20
@pytest.mark.parametrize("weights", ["layer1.0", ""], ids=["one block", "all weights"])
def test_statistics_perturbed_behind_perturbed_weights_are_told(
    tmp_path: Path, weights: str
) -> None:
    state = resnet20()
    perturb_weights(state, weights)
    perturb_statistics(state, "layer2.1.bn1")
    reset(state, "layer3.0.bn2")
    found = named(state, tmp_path)
    assert found["BN053"] == ("layer3.0.bn2",)
    assert found["BN051"] == ("layer2.1.bn1",)
    expected = 17 if not weights else 16  # the stem is before the block
    assert len(found["BN050"]) == expected
    assert not {"layer2.1.bn1", "layer3.0.bn2"} & set(found["BN050"])
