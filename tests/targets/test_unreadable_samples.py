from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder

from bnaudit.targets.data import BadSample, Loaded, SkipBad, open_data
from bnaudit.targets.samples import Readable
from bnaudit.targets.transforms import build_transform

Write = Callable[..., Path]
Draw = Callable[..., Path]


class Faulty(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise KeyError("no\n such key")
        return torch.full((2,), float(index)), index


def images(folder: Path, draw: Draw) -> Path:
    for name in ["a", "b", "c", "d"]:
        draw(folder / f"one/{name}.png", size=(40, 40))
    whole = (folder / "one/b.png").read_bytes()
    (folder / "one/b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "one/c.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_and_named(tmp_path: Path, draw: Draw, workers: int) -> None:
    folder = images(tmp_path / "set", draw)
    dataset = open_data(f"imagefolder:{folder}", {}, None).dataset
    (loaded,) = DataLoader(dataset, batch_size=4, collate_fn=SkipBad(), num_workers=workers)
    assert loaded.kept == (0, 3)
    assert loaded.batch[0].shape == (2, 3, 40, 40)
    assert [bad.source for bad in loaded.bad] == [f"{folder}/one/{name}.png" for name in "bc"]
    assert "truncated" in loaded.bad[0].error
    assert "cannot identify image file" in loaded.bad[1].error


def test_a_batch_of_nothing_but_unreadable_images_is_none(tmp_path: Path, draw: Draw) -> None:
    folder = images(tmp_path / "set", draw)
    dataset = open_data(f"imagefolder:{folder}", {}, None).dataset
    (loaded,) = DataLoader(Subset(dataset, [1, 2]), batch_size=2, collate_fn=SkipBad())
    assert (loaded.batch, loaded.kept, len(loaded.bad), loaded.error) == (None, (), 2, None)


def test_a_datasets_own_failure_is_a_bad_sample() -> None:
    (loaded,) = DataLoader(Readable(Faulty()), batch_size=4, collate_fn=SkipBad())
    assert loaded.bad == (BadSample("sample 2", "KeyError: 'no\\n such key'"),)
    assert loaded.batch[1].tolist() == [0, 1, 3]


def test_a_users_image_folder_names_its_files(tmp_path: Path, draw: Draw) -> None:
    folder = images(tmp_path / "set", draw)
    part = Subset(ImageFolder(str(folder)), [3, 1])
    assert Readable(part)[1].source == f"{folder}/one/b.png"


def test_a_transform_that_fails_makes_bad_samples(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "set/a.png")

    def transform(image: Image.Image) -> None:
        raise ZeroDivisionError("oh")

    dataset = open_data(f"imagefolder:{tmp_path}/set", {}, transform).dataset
    assert dataset[0] == BadSample(f"{tmp_path}/set/a.png", "ZeroDivisionError: oh")


def test_a_loop_over_a_readable_dataset_ends() -> None:
    assert len(list(Readable(Faulty()))) == 4
    with pytest.raises(IndexError):
        Readable(Faulty())[4]


def test_running_out_of_memory_is_not_a_bad_sample() -> None:
    class Large(Faulty):
        def __getitem__(self, index: int) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        Readable(Large())[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_ask_for_a_transform(
    tmp_path: Path, draw: Draw, workers: int
) -> None:
    draw(tmp_path / "set/one/a.png", size=(8, 8))
    draw(tmp_path / "set/one/b.png", size=(8, 9))
    dataset = open_data(f"imagefolder:{tmp_path}/set", {}, None).dataset
    (loaded,) = DataLoader(dataset, batch_size=2, collate_fn=SkipBad(), num_workers=workers)
    assert loaded.batch is None
    assert loaded.error == (
        "images have different sizes (3×8×8, 3×9×8): give --transform, so that they come out "
        "alike, or --batch-size 1"
    )


def test_images_that_stay_pillow_images_ask_for_tensors(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "set/a.png")
    dataset = open_data(f"imagefolder:{tmp_path}/set", {}, lambda image: image).dataset
    assert "Pillow images, not tensors" in SkipBad()([dataset[0]]).error


def test_a_collate_function_that_raises_is_named() -> None:
    def collate(samples: list[Any]) -> None:
        raise ValueError("never\nagain")

    loaded = SkipBad(collate)([1, 2])
    assert "collate_fn raised ValueError: never again" in loaded.error
    assert "test_unreadable_samples.py:" in loaded.error


def test_samples_that_cannot_be_batched_say_why() -> None:
    assert "cannot be put into a batch: TypeError" in SkipBad()([None, None]).error


def test_a_loaded_batch_survives_pickling() -> None:
    loaded = pickle.loads(pickle.dumps(Loaded(None, (BadSample("a", "b"),), (), "c")))
    assert loaded == Loaded(None, (BadSample("a", "b"),), (), "c")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_loaded_batch_can_be_pinned() -> None:
    loader = DataLoader(Readable(Faulty()), batch_size=4, collate_fn=SkipBad(), pin_memory=True)
    (loaded,) = loader
    assert loaded.batch[0].is_pinned()
    assert len(loaded.bad) == 1


def test_pickling_a_dataset_leaves_the_bytecode_setting_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    copy = pickle.loads(pickle.dumps(Readable(Faulty())))
    assert len(copy) == 4
    assert sys.dont_write_bytecode is False


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_import_what_a_users_file_defines(
    write: Write, tmp_path: Path, method: str
) -> None:
    write(
        "its_sibling.py",
        "from torch.utils.data import Dataset\n"
        "class Counting(Dataset):\n"
        "    def __len__(self): return 3\n"
        "    def __getitem__(self, index): return self.transform(index)\n"
        "def collate(samples): return sum(samples)\n",
    )
    write("its_late_import.py", "STEP = 10\n")
    file = write(
        "random.py",
        "from torch.utils.data import DataLoader\n"
        "from its_sibling import Counting, collate\n"
        "class Mine(Counting):\n"
        "    def __init__(self, transform): self.transform = transform\n"
        "class Step:\n"
        "    def __call__(self, index):\n"
        "        from its_late_import import STEP\n"
        "        return STEP + index\n"
        "def make(transform): return DataLoader(Mine(transform), 3, collate_fn=collate)\n",
    )
    transform = build_transform(f"{file}:Step")
    target = open_data(f"{file}:make", {}, transform)
    (loaded,) = DataLoader(
        target.dataset,
        batch_size=target.batch_size,
        collate_fn=SkipBad(target.collate),
        num_workers=1,
        multiprocessing_context=method,
    )
    assert loaded == Loaded(33, (), (0, 1, 2))
    assert not list(tmp_path.rglob("__pycache__"))
