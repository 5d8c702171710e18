"""Files that lost a part of their statistics: what inspect says, and what loading them says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bnaudit
from bnaudit.checkpoints.contents import read_contents
from bnaudit.checkpoints.load import load_checkpoint
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.errors import InputError
from bnaudit.results import Finding


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, affine=False)
    )


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = network()
    for _ in range(200):
        model(torch.randn(8, 3, 8, 8) + 1)
    return model.state_dict()


def without(state: dict[str, Tensor], path: Path, *leaves: str) -> Path:
    kept = {name: value for name, value in state.items() if name.rpartition(".")[2] not in leaves}
    torch.save(kept, path)
    return path


def found(path: Path, *against: Path) -> dict[str, Finding]:
    return {finding.code: finding for finding in bnaudit.inspect(path, against=against).findings}


@pytest.mark.parametrize(
    ("leaves", "sentence"),
    [
        (["running_var"], "All 2 layers have running_mean and no running_var"),
        (["running_mean"], "All 2 layers have running_var and no running_mean"),
        (["running_var", "num_batches_tracked"], "Layer 1 has running_mean and no running_var"),
        (
            ["running_mean", "running_var"],
            "All 2 layers have num_batches_tracked and no running_mean and no running_var",
        ),
    ],
)
def test_statistics_that_were_lost_are_an_error_with_the_layers(
    state: dict[str, Tensor], tmp_path: Path, leaves: list[str], sentence: str
) -> None:
    """The second layer has no weights: only its counter tells that it is a BatchNorm's."""
    finding = found(without(state, tmp_path / "a.pt", *leaves))["BN006"]
    assert finding.severity == "error"
    assert finding.layers == (("1",) if sentence.startswith("Layer 1 ") else ("1", "3"))
    assert finding.sentence.startswith(sentence)


def test_a_file_with_all_its_statistics_lost_none(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pt")
    assert "BN006" not in found(tmp_path / "a.pt")
    assert "BN006" not in found(without(state, tmp_path / "b.pt", "num_batches_tracked"))


def test_they_stay_an_error_beside_a_parent_that_has_them(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "parent.pt")
    codes = found(without(state, tmp_path / "a.pt", "running_var"), tmp_path / "parent.pt")
    assert codes["BN006"].severity == "error"
    assert "BN055" not in codes


def test_a_mean_of_another_kind_of_layer_is_not_taken_for_a_batch_norms(tmp_path: Path) -> None:
    norms = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True))
    norms[0].running_var = None
    torch.save(norms, tmp_path / "model.pt")
    torch.save({"norm.running_mean": torch.ones(3), "norm.bias": torch.ones(3)}, tmp_path / "a.pt")
    for path in (tmp_path / "model.pt", tmp_path / "a.pt"):
        assert state_of_contents(read_contents(path)).incomplete == ()


def test_the_file_is_at_fault_and_not_the_model_where_only_statistics_are_missing(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        load_checkpoint(network(), without(state, tmp_path / "a.pt", "running_var"))
    said = str(caught.value)
    assert "the file has no running_var of 2 BatchNorm layers (1, 3)" in said
    assert "--allow-mismatch" in said
    assert "--model" not in said


def test_the_model_is_named_where_more_than_statistics_is_missing(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    del state["2.weight"]
    without(state, tmp_path / "a.pt", "running_var")
    with pytest.raises(InputError, match="--model"):
        load_checkpoint(network(), tmp_path / "a.pt")
