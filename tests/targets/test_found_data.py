"""Data of the usual forms are found in a folder, the likeliest held-out set first."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnaudit.targets.found_data import FoundData, find_data, image_sizes, opened


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classes(folder: str, count: int = 2, side: int = 8) -> None:
    for number in range(count):
        file = Path(folder, f"class {number}", "a.png")
        file.parent.mkdir(parents=True)
        Image.new("RGB", (side + number, side)).save(file)


def archive(file: str, **arrays: int) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{name: np.zeros((n, 8, 8, 3), np.uint8) for name, n in arrays.items()})


def specs(found: list[FoundData]) -> list[str]:
    return [one.spec for one in found]


def test_validation_comes_before_test_and_training_last() -> None:
    for part in ("train", "test", "val"):
        classes(f"data/{part}")
    found = find_data(Path())
    assert specs(found) == [
        "imagefolder:data/val",
        "imagefolder:data/test",
        "imagefolder:data/train",
    ]
    assert [one.part for one in found] == ["held out", "held out", "training"]


def test_every_usual_form_is_found_and_can_be_opened() -> None:
    classes("valid")
    archive("digits.npz", x=4)
    archive("data/more.npz", x_test=3, x_train=5, z=1)
    batch = Path("data/cifar-10-batches-bin/test_batch.bin")
    batch.parent.mkdir(parents=True)
    batch.write_bytes(bytes(3073 * 2))
    found = find_data(Path())
    assert set(specs(found)) == {
        "imagefolder:valid",
        "npz:digits.npz",
        "npz:data/more.npz",
        "cifar10:data",
    }
    assert [dict(one.args) for one in found if one.spec == "npz:data/more.npz"] == [
        {"split": "test"},
        {"split": "train"},
    ]
    assert all(opened(one) is not None for one in found)


def test_a_folder_of_classes_without_a_usual_name_comes_after_held_out_data() -> None:
    classes("birds")
    classes("data/test")
    found = find_data(Path())
    assert specs(found) == ["imagefolder:data/test", "imagefolder:birds"]
    assert found[1].part == "unnamed"


def test_images_without_classes_are_data_too() -> None:
    Path("val").mkdir()
    Image.new("RGB", (8, 8)).save("val/a.png")
    assert specs(find_data(Path())) == ["imagefolder:val"]


def test_folders_without_images_and_other_archives_are_no_data() -> None:
    for folder in ("val", "test/unit", "src/a", "src/b"):
        Path(folder).mkdir(parents=True)
        Path(folder, "notes.txt").write_text("x")
    archive("weights.npz", gamma=2)
    Path("broken.npz").write_bytes(b"PK no")
    assert find_data(Path()) == []


def test_what_looks_like_data_and_is_damaged_is_not_opened() -> None:
    Path("val.npz").write_bytes(b"")
    np.savez("test.npz", x=np.zeros(3, np.complex64))
    found = find_data(Path())
    assert specs(found) == ["npz:test.npz"]
    assert opened(found[0]) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes")
def test_nothing_waits_for_a_pipe() -> None:
    os.mkfifo("val.npz")
    Path("val").mkdir()
    os.mkfifo("val/a.png")
    assert find_data(Path()) == []
    assert image_sizes("imagefolder:val") == set()


def test_the_sizes_of_images_are_seen() -> None:
    classes("val", count=3, side=8)
    assert image_sizes("imagefolder:val") == {(8, 8), (9, 8), (10, 8)}
    assert image_sizes("npz:val.npz") == set()
