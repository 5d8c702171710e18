"""The old statistics back into a copy, from the sidecar."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bnaudit.checkpoints.patch import PatchReport, patch_checkpoint
from bnaudit.checkpoints.restore import default_target, restore_checkpoint
from bnaudit.errors import InputError

NEW = {"running_mean": torch.tensor([1.0, 2.0, 3.0])}


def checkpoint(path: Path, format_: str = "zip") -> Path:
    state = {"running_mean": torch.tensor([0.5, math.nan, math.inf]), "w": torch.randn(2)}
    if format_ == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=format_ == "zip")
    return path


def recalibrated(folder: Path, format_: str = "zip", **options: Any) -> PatchReport:
    path = checkpoint(folder / "ckpt.pth", format_)
    options = {"provenance": {"method": "exact", "é": [1, None]}} | options
    return patch_checkpoint(path, folder / "ckpt.recalibrated.pth", NEW, key="", **options)


def refusal(path: Path, target: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        restore_checkpoint(path, target)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("format_", ["zip", "legacy", "safetensors"])
def test_a_restored_file_is_the_original_byte_for_byte(tmp_path: Path, format_: str) -> None:
    report = recalibrated(tmp_path, format_)
    original = (tmp_path / "ckpt.pth").read_bytes()
    assert report.target.read_bytes() != original
    restored = restore_checkpoint(report.target)
    assert restored.identical
    assert restored.target == tmp_path / "ckpt.restored.pth"
    assert restored.source == "ckpt.pth"
    assert restored.notes == ()
    assert restored.tensors == 1
    assert restored.target.read_bytes() == original
    assert restored.sha256 == hashlib.sha256(original).hexdigest()


def test_the_sidecar_says_where_the_file_comes_from(tmp_path: Path) -> None:
    report = recalibrated(tmp_path)
    assert report.sidecar.name == "ckpt.recalibrated.pth.bnaudit.json"
    document = json.loads(report.sidecar.read_text("utf-8"))
    original = (tmp_path / "ckpt.pth").read_bytes()
    assert document["schema"] == 1
    assert document["source"] == {
        "name": "ckpt.pth",
        "sha256": hashlib.sha256(original).hexdigest(),
        "bytes": len(original),
    }
    assert document["target"]["sha256"] == report.sha256
    assert document["target"]["name"] == "ckpt.recalibrated.pth"
    assert document["provenance"] == {"method": "exact", "é": [1, None]}
    assert document["in_place"] is True
    assert document["key"] == ""
    assert document["before"]["running_mean"]["shape"] == [3]
    assert "previous" not in document


def test_a_moved_pair_can_be_restored(tmp_path: Path) -> None:
    report = recalibrated(tmp_path)
    original = (tmp_path / "ckpt.pth").read_bytes()
    (tmp_path / "ckpt.pth").unlink()
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (report.target, report.sidecar):
        path.rename(moved / path.name.replace("ckpt", "other"))
    restored = restore_checkpoint(moved / "other.recalibrated.pth", tmp_path / "back.pth")
    assert restored.identical
    assert (tmp_path / "back.pth").read_bytes() == original


def test_a_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    report = recalibrated(tmp_path)
    torch.save({"running_mean": torch.zeros(3), "w": torch.ones(2)}, report.target)
    assert "belongs to other content" in refusal(report.target)
    assert not (tmp_path / "ckpt.restored.pth").exists()


def test_the_original_has_nothing_to_restore(tmp_path: Path) -> None:
    recalibrated(tmp_path)
    assert "no ckpt.pth.bnaudit.json beside it" in refusal(tmp_path / "ckpt.pth")
    assert "check the path" in refusal(tmp_path / "missing.pth")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d | {"schema": 2}, "schema 2"),
        (lambda d: d | {"schema": None}, "not a sidecar"),
        (lambda d: [d], "not a sidecar"),
        (lambda d: d | {"before": {"running_mean": {"dtype": "save", "shape": []}}}, "not a side"),
        (lambda d: d | {"before": [1]}, "not a sidecar"),
        (lambda d: {k: v for k, v in d.items() if k != "target"}, "not a sidecar"),
    ],
)
def test_a_damaged_sidecar_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    report = recalibrated(tmp_path)
    document = json.loads(report.sidecar.read_text("utf-8"))
    report.sidecar.write_text(json.dumps(change(document)), "utf-8")
    assert said in refusal(report.target)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_sidecar_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    report = recalibrated(tmp_path)
    report.sidecar.write_bytes(content)
    assert "not a sidecar" in refusal(report.target)


def test_restore_never_writes_to_its_input_and_asks_before_it_overwrites(tmp_path: Path) -> None:
    report = recalibrated(tmp_path)
    before = report.target.read_bytes()
    assert "the input file itself" in refusal(report.target, report.target)
    assert "--overwrite" in refusal(report.target, tmp_path / "ckpt.pth")
    restored = restore_checkpoint(report.target, tmp_path / "ckpt.pth", overwrite=True)
    assert restored.identical
    assert report.target.read_bytes() == before


def test_a_file_patched_twice_is_restored_step_by_step(tmp_path: Path) -> None:
    first = recalibrated(tmp_path)
    second = patch_checkpoint(
        first.target,
        tmp_path / "second.pth",
        {"running_mean": torch.tensor([7.0, 8.0, 9.0])},
        key="",
        provenance={},
    )
    back = restore_checkpoint(second.target, tmp_path / "back.pth")
    assert back.identical
    assert back.source == first.target.name
    assert (tmp_path / "back.pth").read_bytes() == first.target.read_bytes()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a/ckpt.recalibrated.pth", "a/ckpt.restored.pth"),
        ("ckpt.recalibrated", "ckpt.restored"),
        ("ckpt.pth", "ckpt.restored.pth"),
        ("model.v1.safetensors", "model.v1.restored.safetensors"),
    ],
)
def test_the_default_name_says_restored(path: str, target: str) -> None:
    assert default_target(Path(path)) == Path(target)
