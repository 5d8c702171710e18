"""`bnaudit.compare`: Audits in hand, documents, folders, and what is none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import BN_NAMES, classifier, images
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.report.files import write_results
from bnaudit.results import Audit, Changes


@pytest.fixture(scope="module")
def audits() -> tuple[Audit, Audit]:
    data = TensorDataset(*images())
    model = classifier()
    before = bnaudit.measure(model, data, attribute="none")
    model.get_submodule("4").get_buffer("running_mean").add_(1.0)
    return before, bnaudit.measure(model, data, attribute="none")


def test_what_was_broken_is_what_got_worse(audits: tuple[Audit, Audit]) -> None:
    changes = bnaudit.compare(*audits)
    assert changes.paired
    assert [layer.name for layer in changes.layers] == list(BN_NAMES)
    first, broken, _ = (layer.output_shift for layer in changes.layers)
    assert first is not None
    assert first.difference == 0
    assert broken is not None
    assert broken.significant
    assert broken.difference > 0


def test_documents_and_folders_are_compared_as_the_audits_themselves(
    audits: tuple[Audit, Audit], tmp_path: Path
) -> None:
    for audit, name in zip(audits, ("old", "new"), strict=True):
        write_results(audit, tmp_path / name, plots=False)
    of_folders = bnaudit.compare(tmp_path / "old", str(tmp_path / "new"))
    of_files = bnaudit.compare(tmp_path / "old" / "audit.json", tmp_path / "new" / "audit.json")
    in_hand = bnaudit.compare(*audits)
    assert of_folders.layers == of_files.layers == in_hand.layers
    assert of_folders.network == in_hand.network
    assert of_folders.before.source == str(tmp_path / "old")
    assert of_files.after.source == str(tmp_path / "new" / "audit.json")
    assert in_hand.before.source == "before"
    assert bnaudit.compare(audits[0], tmp_path / "new").paired


def test_changes_come_back_from_their_document(audits: tuple[Audit, Audit]) -> None:
    changes = bnaudit.compare(*audits)
    assert Changes.from_json(changes.to_json()) == changes


def test_audits_of_two_networks_cannot_be_compared(audits: tuple[Audit, Audit]) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.BatchNorm1d(5))).eval()
    other = bnaudit.measure(model, TensorDataset(torch.randn(50, 4)), attribute="none")
    with pytest.raises(InputError, match=r"before \(3 layers, the first 1\) and after \(1 layer, "):
        bnaudit.compare(audits[0], other)


def test_networks_without_batch_norm_have_nothing_to_compare(audits: tuple[Audit, Audit]) -> None:
    data = TensorDataset(torch.randn(50, 4))
    bare = bnaudit.measure(nn.Linear(4, 2).eval(), data)
    assert bnaudit.compare(bare, bare).layers == ()
    with pytest.raises(InputError, match="without layers"):
        bnaudit.compare(bare, audits[0])


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 99}', "\x00"])
def test_what_is_no_audit_is_refused_by_its_name(
    audits: tuple[Audit, Audit], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "audit.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"audit\.json"):
        bnaudit.compare(audits[0], path)
    with pytest.raises(InputError, match="nowhere"):
        bnaudit.compare(tmp_path / "nowhere", audits[0])


def test_comparing_documents_needs_no_torch(audits: tuple[Audit, Audit], tmp_path: Path) -> None:
    for audit, name in zip(audits, ("old", "new"), strict=True):
        (tmp_path / name).write_text(audit.to_json())
    code = (
        "import sys, bnaudit; bnaudit.compare(*sys.argv[1:]); "
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "old", tmp_path / "new"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
