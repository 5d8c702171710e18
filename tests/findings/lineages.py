"""Checkpoints that really come from one another, and what the rules say of the two."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from stored_states import Net, train
from torch import Tensor, nn

from bnaudit.checkpoints.contents import read_contents
from bnaudit.checkpoints.lineage import compare
from bnaudit.checkpoints.parents import Checkpoint
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results.findings import Finding
from bnaudit.results.lineage import Lineage

State = Mapping[str, Tensor]

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RESNET20 = DATA / "resnet20-12fca82f.th"

needs_resnet20 = pytest.mark.skipif(not RESNET20.exists(), reason="no ../shared/data")


def trained(steps: int = 60, **settings: float) -> Net:
    net = Net(**settings)
    train(net, steps)
    return net


def copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def child_of(net: Net) -> Net:
    return copy.deepcopy(net)


def lineage(folder: Path, child: nn.Module | State, *parents: nn.Module | State) -> Lineage:
    """The lineage of checkpoints that hold these states, through files."""
    paths = [_saved(folder / f"parent{i}.pt", parent) for i, parent in enumerate(parents)]
    return lineage_of_files(_saved(folder / "child.pt", child), *paths)


def lineage_of_files(child: Path, *parents: Path) -> Lineage:
    return compare(_checkpoint(child), [_checkpoint(parent) for parent in parents])


def concluded(found: Lineage, policy: Policy = DEFAULT) -> dict[str, Finding]:
    """By code; a code that is found twice is an error here."""
    findings = conclude([found], policy)
    assert len({finding.code for finding in findings}) == len(findings)
    return {finding.code: finding for finding in findings}


def findings(
    folder: Path, child: nn.Module | State, *parents: nn.Module | State
) -> dict[str, Finding]:
    return concluded(lineage(folder, child, *parents))


def _checkpoint(path: Path) -> Checkpoint:
    contents = read_contents(path)
    return Checkpoint(contents, state_of_contents(contents))


def _saved(path: Path, net: nn.Module | State) -> Path:
    torch.save(net.state_dict() if isinstance(net, nn.Module) else dict(net), path)
    return path
