"""Statistics that were not saved, weights that are an average, a parent that was broken."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from audits import digits_net
from torch import Tensor, nn

import bnaudit
from bnaudit.results import Finding


def saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def found(path: Path, *parents: Path) -> dict[str, Finding]:
    return {finding.code: finding for finding in bnaudit.inspect(path, against=parents).findings}


@pytest.fixture
def net() -> nn.Module:
    return digits_net("healthy")


@pytest.fixture
def parent(net: nn.Module, tmp_path: Path) -> Path:
    return saved(net.state_dict(), tmp_path / "parent.pt")


def test_statistics_that_were_not_saved_are_missed_against_the_parent(
    net: nn.Module, parent: Path, tmp_path: Path
) -> None:
    child = saved(dict(net.named_parameters()), tmp_path / "child.pt")
    codes = found(child, parent)
    assert codes["BN055"].severity == "warning"
    assert len(codes["BN055"].layers) == 9
    assert "were not saved" in codes["BN055"].sentence
    assert "BN006" not in codes  # the same, without a parent
    assert "BN006" in found(child)


def test_a_layer_that_was_removed_with_its_weights_is_information(
    net: nn.Module, parent: Path, tmp_path: Path
) -> None:
    rest = {name: value for name, value in net.state_dict().items() if "blocks.3.bn2" not in name}
    codes = found(saved(rest, tmp_path / "child.pt"), parent)
    assert codes["BN055"].severity == "info"
    assert codes["BN055"].layers == ("blocks.3.bn2",)


def test_averaged_weights_say_so_in_the_file(net: nn.Module, tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(net)
    average.update_parameters(net)
    once = saved(average.state_dict(), tmp_path / "once.pt")
    assert "BN021" not in found(once)
    average.update_parameters(net)
    twice = saved(average.state_dict(), tmp_path / "twice.pt")
    assert found(twice)["BN021"].evidence == {"n_averaged": 2.0}


def test_statistics_that_were_mended_have_not_drifted(
    net: nn.Module, parent: Path, tmp_path: Path
) -> None:
    broken = copy.deepcopy(net)
    broken.bn.running_mean[0] = torch.nan
    before = saved(broken.state_dict(), tmp_path / "broken.pt")
    assert "BN051" not in found(parent, before)
    broken.bn.running_mean[0] = 1.0
    assert "BN051" in found(parent, saved(broken.state_dict(), tmp_path / "moved.pt"))


def test_findings_that_need_data_are_said_to_need_them(parent: Path) -> None:
    inspection = bnaudit.inspect(parent, policy=bnaudit.Policy(select=("BN1",)))
    assert any("measure on data" in note for note in inspection.notes)
    assert not any("measure on data" in note for note in bnaudit.inspect(parent).notes)
