"""Where a recalibrated checkpoint cannot go, told before the work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bnaudit.checkpoints.patch import patch_checkpoint
from bnaudit.checkpoints.target import check_target
from bnaudit.checkpoints.writing import write_copy
from bnaudit.errors import InputError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.pt"
    torch.save({"running_mean": torch.ones(3), "w": torch.ones(2)}, path)
    return path


def refusal(source: Path, target: Path, *, overwrite: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        check_target(source, target, overwrite=overwrite)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(target))
    return message


def test_a_new_name_is_fine(source: Path) -> None:
    check_target(source, source.with_name("b.pt"), overwrite=False)


def test_the_input_is_never_a_target_under_whatever_name(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source.parent
    (folder / "link.pt").symlink_to(source)
    os.link(source, folder / "hard.pt")
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder)
    names = [source, Path("a.pt"), folder / "inner" / ".." / "a.pt"]
    for name in [*names, folder / "link.pt", folder / "hard.pt"]:
        for overwrite in (False, True):
            assert "the input file itself" in refusal(source, name, overwrite=overwrite)
            assert "the input file itself" in refusal(Path("a.pt"), name, overwrite=overwrite)


def test_a_sidecar_never_replaces_the_input(tmp_path: Path) -> None:
    source = tmp_path / "a.pt.bnaudit.json"
    torch.save({"running_mean": torch.ones(3)}, source)
    with pytest.raises(InputError, match="the input file itself"):
        check_target(source, tmp_path / "a.pt", overwrite=True)


@pytest.mark.parametrize("name", ["b.pt", "b.pt.bnaudit.json"])
def test_existing_files_are_replaced_only_with_overwrite(source: Path, name: str) -> None:
    target = source.with_name("b.pt")
    source.with_name(name).write_text("x")
    with pytest.raises(InputError, match="--overwrite") as caught:
        check_target(source, target, overwrite=False)
    assert name in str(caught.value)
    check_target(source, target, overwrite=True)


def test_a_dangling_link_counts_as_existing(source: Path) -> None:
    target = source.with_name("b.pt")
    target.symlink_to(source.with_name("nothing"))
    assert "--overwrite" in refusal(source, target)


def test_folders_are_told_apart(source: Path) -> None:
    assert "a folder" in refusal(source, source.parent)
    assert "does not exist" in refusal(source, source.parent / "no" / "b.pt")
    assert "is a file" in refusal(source, source / "b.pt")


@pytest.mark.skipif(os.name == "nt", reason="pipes are not files there")
def test_what_is_no_regular_file_is_refused(source: Path) -> None:
    target = source.with_name("pipe")
    os.mkfifo(target)
    assert "not a regular file" in refusal(source, target, overwrite=True)


def test_a_read_only_folder_is_told(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    folder = source.parent / "locked"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != folder and real(p, mode))
    assert "not writable" in refusal(source, folder / "b.pt")


def test_a_full_disk_is_told(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Callable[[object], object] = lambda _: type("U", (), {"free": 10})  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    assert "10 are free" in refusal(source, source.with_name("b.pt"))


def test_a_torch_file_does_not_get_the_suffix_of_safetensors(source: Path) -> None:
    assert "file of torch.save" in refusal(source, source.with_name("b.safetensors"))
    other = source.with_name("c.safetensors")
    save_file({"w": torch.ones(2)}, other)
    check_target(other, source.with_name("b.safetensors"), overwrite=False)


def test_patch_checks_the_target(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(InputError, match="the input file itself"):
        patch_checkpoint(
            source, source, {"running_mean": torch.zeros(3)}, key="", provenance={}, overwrite=True
        )
    assert source.read_bytes() == before


def test_a_target_that_appears_meanwhile_is_not_replaced(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = source.with_name("b.pt")

    def slow(*args: object, **options: object) -> object:
        target.write_text("somebody else's")
        return write_copy(*args, **options)

    monkeypatch.setattr("bnaudit.checkpoints.patch.write_copy", slow)
    with pytest.raises(InputError, match="--overwrite"):
        patch_checkpoint(source, target, {"running_mean": torch.zeros(3)}, key="", provenance={})
    assert target.read_text() == "somebody else's"
    assert {path.name for path in source.parent.iterdir()} == {"a.pt", "b.pt"}


def test_a_file_that_changed_since_it_was_loaded_is_refused(source: Path) -> None:
    with pytest.raises(InputError, match="was changed since it was loaded"):
        patch_checkpoint(
            source,
            source.with_name("b.pt"),
            {"running_mean": torch.zeros(3)},
            key="",
            provenance={},
            source_sha256="0" * 64,
        )
    assert [p.name for p in source.parent.iterdir()] == ["a.pt"]
