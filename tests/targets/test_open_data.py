from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder

from bnaudit.errors import InputError
from bnaudit.targets.data import BadSample, SkipBad, open_data

Write = Callable[..., Path]
Draw = Callable[..., Path]

FILE = """
import torch
from torch.utils.data import *

x, y = torch.arange(12.).reshape(6, 2), torch.arange(6)
data = TensorDataset(x, y)

class Stream(IterableDataset):
    def __iter__(self): return iter(x)

class Endless(Dataset):
    def __getitem__(self, index): return index

class Foreign:
    def __len__(self): return 3
    def __getitem__(self, index): return x[index]

def pair(samples): return [x for x, _ in samples], len(samples)

def dataset(rows=6): return Subset(data, range(rows))
def foreign(): return Foreign()
def loader(): return DataLoader(data, batch_size=4, collate_fn=pair, shuffle=True)
def part(): return DataLoader(data, batch_size=2, sampler=SubsetRandomSampler([1, 3, 5]))
def weighted():
    return DataLoader(data, batch_size=2, sampler=WeightedRandomSampler(torch.ones(6), 6))
def repeating(): return DataLoader(data, 2, sampler=RandomSampler(data, replacement=True))
def fewer(): return DataLoader(data, 2, sampler=RandomSampler(data, num_samples=4))
def unbatched(): return DataLoader(data, batch_size=None)
def own_batches():
    return DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 3, False))
class Brighter(DataLoader):
    def __iter__(self): return ([x + 1, y] for x, y in super().__iter__())

def brighter(): return Brighter(data, batch_size=2)
def stream(): return DataLoader(Stream(), batch_size=2)
def batches(): return [x[:2], x[2:]]
def generated(): yield x[:2]
def with_transform(transform=None): return TensorDataset(x), transform
def transformed(transform): return [transform(x)]

def bare_stream(): return Stream()
def endless(): return Endless()
def empty(): return Subset(data, [])
def no_batches(): return []
def forgets(): pass
def tensor(): return x
def splits(): return {'train': data, 'test': data}
def two(): return data, data
def number(): return 3
def a_class(): return Foreign
def fails(): raise OSError('no disk')
"""


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    draw(tmp_path / "set/zebra/1.png", colour=(255, 0, 51))
    draw(tmp_path / "set/ant/b.JPG")
    draw(tmp_path / "set/ant/deep/a.png")
    draw(tmp_path / "set/ant/c.bmp")
    (tmp_path / "set/ant/notes.txt").write_text("")
    (tmp_path / "set/.cache").mkdir()
    return tmp_path / "set"


def test_an_image_folder_is_torchvisions(folder: Path) -> None:
    target = open_data(f"imagefolder:{folder}", {}, None)
    (folder / ".cache").rmdir()
    theirs = ImageFolder(str(folder))
    assert target.classes == ("ant", "zebra") == tuple(theirs.classes)
    assert [target.dataset[i][1] for i in range(4)] == theirs.targets
    assert target.dataset.dataset.files == [path for path, _ in theirs.samples]
    assert (target.labelled, target.stream, target.collate, target.batch_size) == (
        True,
        None,
        None,
        None,
    )
    assert "4 images, 2 classes" in target.description


def test_an_image_without_a_transform_is_rgb_from_0_to_1(folder: Path) -> None:
    image, label = open_data(f"imagefolder:{folder}", {}, None).dataset[3]
    assert label == 1
    assert image.shape == (3, 4, 5)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([1, 0, 0.2]))


def test_a_transform_gets_an_rgb_pillow_image(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "set/grey.png", colour=(7,))
    target = open_data(f"imagefolder:{tmp_path}/set", {}, lambda image: (image.mode, image.size))
    draw(tmp_path / "set/rgba.png", colour=(7, 8, 9, 255))
    assert target.dataset[0] == ("RGB", (5, 4))


def test_a_folder_of_images_is_a_set_without_labels(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "set/b.png")
    draw(tmp_path / "set/a.png")
    target = open_data(f"imagefolder:{tmp_path}/set", {}, None)
    assert (target.labelled, target.classes, len(target.dataset)) == (False, None, 2)
    assert isinstance(target.dataset[0], Tensor)


def test_images_beside_the_class_folders_are_mentioned(folder: Path, draw: Draw) -> None:
    draw(folder / "loose.png")
    assert "1 images outside" in open_data(f"imagefolder:{folder}", {}, None).description


def factory(write: Write, name: str) -> str:
    return f"{write('its_data.py', FILE)}:{name}"


def test_a_dataset_is_drawn_from(write: Write) -> None:
    target = open_data(factory(write, "dataset"), {"rows": 4}, None)
    assert len(target.dataset) == 4
    assert (target.stream, target.collate, target.batch_size) == (None, None, None)
    assert target.labelled is None
    assert "TensorDataset, 4 samples" in target.description


def test_a_foreign_dataset_is_drawn_from(write: Write) -> None:
    target = open_data(factory(write, "foreign"), {}, None)
    assert len(list(DataLoader(target.dataset))) == 3
    assert len(list(target.dataset)) == 3


def test_a_plain_loader_gives_its_dataset_collate_and_batch_size(write: Write) -> None:
    target = open_data(factory(write, "loader"), {}, None)
    assert (len(target.dataset), target.batch_size, target.stream) == (6, 4, None)
    assert target.collate([target.dataset[0]])[1] == 1


def test_a_loader_over_a_part_gives_that_part(write: Write) -> None:
    target = open_data(factory(write, "part"), {}, None)
    assert [int(target.dataset[i][1]) for i in range(3)] == [1, 3, 5]
    assert target.collate is None


def test_a_loader_with_a_batch_sampler_gives_its_batch_size(write: Write) -> None:
    target = open_data(factory(write, "own_batches"), {}, None)
    assert (len(target.dataset), target.batch_size) == (6, 3)


@pytest.mark.parametrize(
    "name",
    ["weighted", "repeating", "fewer", "unbatched", "brighter", "stream", "batches", "generated"],
)
def test_batches_that_are_not_ours_to_order_are_a_stream(write: Write, name: str) -> None:
    target = open_data(factory(write, name), {}, None)
    assert target.dataset is None
    assert len(list(target.stream)) > 0
    assert ("once only" in target.description) == (name == "generated")


def test_a_factory_that_takes_a_transform_is_given_ours(write: Write) -> None:
    target = open_data(factory(write, "transformed"), {}, torch.neg)
    assert next(iter(target.stream)).min() == -11


@pytest.mark.parametrize(
    ("spec", "args", "words"),
    [
        ("{dir}/set", {}, ["imagefolder:{dir}/set"]),
        ("{dir}/digits.npz", {}, ["npz:{dir}/digits.npz"]),
        ("what", {}, ["imagefolder:DIR", "path/file.py:NAME"]),
        ("imagefolder:", {}, ["imagefolder:PATH"]),
        ("imagefolder:{dir}/nowhere", {}, ["nowhere does not exist"]),
        ("imagefolder:{dir}/its_data.py", {}, ["is a file, not a folder"]),
        ("imagefolder:{dir}/hollow", {}, ["has no images", ".jpg"]),
        ("imagefolder:{dir}/texts", {}, ["no images in it or its subfolders"]),
        ("imagefolder:{dir}/gap", {}, ["subfolder none has no images"]),
        ("imagefolder:{dir}/splits", {}, ["splits, not classes (test, train)", "splits/test"]),
        ("imagefolder:{dir}/gap", {"split": "x"}, ["--data-arg split", "accepts nothing"]),
        ("cifar10:{dir}/nowhere", {}, ["there is no folder"]),
        ("npz:{dir}/digit.npz", {}, ["there is no file", "did you mean digits.npz?"]),
        ("npz:{dir}/digits.npz", {"spilt": 1}, ["--data-arg spilt", "accepts split"]),
        ("{dir}/its_data.py:bare_stream", {}, ["IterableDataset", "DataLoader(dataset, batch"]),
        ("{dir}/its_data.py:endless", {}, ["Endless has no __len__"]),
        ("{dir}/its_data.py:empty", {}, ["no samples"]),
        ("{dir}/its_data.py:no_batches", {}, ["a list without batches"]),
        ("{dir}/its_data.py:forgets", {}, ["returned nothing", "`return` missing"]),
        ("{dir}/its_data.py:tensor", {}, ["a Tensor", "TensorDataset(x)"]),
        ("{dir}/its_data.py:splits", {}, ["a dict of train, test", "return one"]),
        ("{dir}/its_data.py:two", {}, ["a tuple of 2 datasets", "return one"]),
        ("{dir}/its_data.py:number", {}, ["an int", "a Dataset, a DataLoader"]),
        ("{dir}/its_data.py:a_class", {}, ["the class Foreign"]),
        ("{dir}/its_data.py:fails", {}, ["OSError: no disk", "its_data.py:"]),
        ("{dir}/its_data.py:dataset", {"row": 1}, ["--data-arg row", "did you mean rows?"]),
        ("{dir}/its_data.py:datset", {}, ["has no datset", "did you mean dataset"]),
    ],
)
def test_wrong_data_are_told_in_one_line(
    write: Write, draw: Draw, tmp_path: Path, spec: str, args: dict[str, object], words: list[str]
) -> None:
    write("its_data.py", FILE)
    write("digits.npz", "")
    write("texts/class/notes.txt", "")
    for name in ["hollow", "gap/none", "splits"]:
        (tmp_path / name).mkdir(parents=True)
    for name in ["set/a/1.png", "gap/some/1.png", "splits/test/a/1.png", "splits/train/a/1.png"]:
        draw(tmp_path / name)
    with pytest.raises(InputError, match="--data") as caught:
        open_data(spec.format(dir=tmp_path), args, None)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word.format(dir=tmp_path) in str(caught.value)


def test_a_transform_that_would_not_be_used_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"--transform does not reach .*parameter `transform`"):
        open_data(factory(write, "dataset"), {}, torch.neg)


def test_every_sample_is_read_as_it_is_in_a_loader(folder: Path) -> None:
    target = open_data(f"imagefolder:{folder}", {}, None)
    loaded = list(DataLoader(target.dataset, batch_size=3, collate_fn=SkipBad()))
    assert [batch.kept for batch in loaded] == [(0, 1, 2), (0,)]
    assert [batch.error for batch in loaded] == [None, None]
    images, labels = loaded[0].batch
    assert (images.shape, labels.tolist()) == ((3, 3, 4, 5), [0, 0, 0])
    expected = default_collate([target.dataset[i] for i in range(3)])
    torch.testing.assert_close(images, expected[0])
    assert not any(isinstance(sample, BadSample) for sample in target.dataset)
