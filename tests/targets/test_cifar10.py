from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnaudit.errors import InputError
from bnaudit.targets.data import open_data

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
LABELS = [3, 0, 9, 1]


def write_python(folder: Path, names: list[str], protocol: int = 2, keys: str = "str") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[Any, Any] = {"data": PIXELS, "labels": LABELS, "filenames": ["a", "b"]}
    if keys == "bytes":
        content = {key.encode(): value for key, value in content.items()}
    for name in names:
        (folder / name).write_bytes(pickle.dumps(content, protocol))


def write_binary(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        records = np.concatenate([np.uint8(LABELS)[:, None], PIXELS], axis=1)
        (folder / name).write_bytes(records.tobytes())


def python2_pickle() -> bytes:
    """A batch as Python 2 wrote it: byte strings, and NumPy under its old names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    )
    raw = PIXELS.tobytes()
    array += (
        b"(K\x01(K\x04M\x00\x0ct" + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in LABELS) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


@pytest.mark.parametrize("place", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("keys", ["str", "bytes"])
def test_python_batches_are_read(tmp_path: Path, place: str, protocol: int, keys: str) -> None:
    write_python(tmp_path / place, ["test_batch"], protocol, keys)
    target = open_data(f"cifar10:{tmp_path}", {}, None)
    image, label = target.dataset[2]
    expected = PIXELS[2].reshape(3, 32, 32).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(image.numpy(), expected)
    assert label == 9
    assert (len(target.dataset), target.labelled) == (4, True)
    assert target.classes[9] == "truck"


def test_batches_that_python_2_wrote_are_read(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(python2_pickle())
    dataset = open_data(f"cifar10:{tmp_path}", {}, None).dataset
    assert [dataset[i][1] for i in range(4)] == LABELS
    assert dataset[1][0][2, 31, 31].item() == pytest.approx(PIXELS[1, -1] / 255)


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin"])
def test_binary_batches_are_read(tmp_path: Path, place: str) -> None:
    write_binary(tmp_path / place, ["test_batch.bin"])
    write_python(tmp_path / "other", ["test_batch"])
    binary = open_data(f"cifar10:{tmp_path}", {}, None).dataset
    python = open_data(f"cifar10:{tmp_path}/other", {}, None).dataset
    for ours, theirs in zip(binary, python, strict=True):
        assert ours[1] == theirs[1]
        assert (ours[0] == theirs[0]).all()


def test_the_train_split_is_five_batches(tmp_path: Path) -> None:
    write_python(tmp_path, [f"data_batch_{i}" for i in range(1, 6)])
    target = open_data(f"cifar10:{tmp_path}", {"split": "train"}, None)
    assert len(target.dataset) == 20
    assert "train, 20 images" in target.description


def test_a_transform_gets_an_rgb_pillow_image(tmp_path: Path) -> None:
    write_python(tmp_path, ["test_batch"])
    dataset = open_data(f"cifar10:{tmp_path}", {}, lambda i: (i.mode, i.getpixel((5, 7)))).dataset
    pixel = tuple(int(value) for value in PIXELS[0].reshape(3, 32, 32)[:, 7, 5])
    assert dataset[0] == (("RGB", pixel), 3)


class Attack:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, exec, open, getattr, pickle.loads])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, protocol: int, function: Any
) -> None:
    mark = tmp_path / "mark"
    content = {"data": Attack(function, f"open({str(mark)!r}, 'w')"), "labels": []}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(InputError, match="test_batch is refused: it asks for"):
        open_data(f"cifar10:{tmp_path}", {}, None)
    assert not mark.exists()


def test_a_pickle_cannot_change_numpys_own_types(tmp_path: Path) -> None:
    state = (3, ">", None, None, None, -1, -1, 0)

    class Vandal:
        def __reduce__(self) -> Any:
            return np.dtype, ("u2",), state

    (tmp_path / "test_batch").write_bytes(pickle.dumps(Vandal(), 2))
    with pytest.raises(InputError):
        open_data(f"cifar10:{tmp_path}", {}, None)
    assert np.array([1], dtype="u2").tobytes() == b"\x01\x00"


@pytest.mark.parametrize(
    ("files", "args", "words"),
    [
        ({}, {}, ["has no test_batch", "cifar-10-batches-py", "give the folder"]),
        ({"cifar-10-python.tar.gz": b""}, {}, ["unpack cifar-10-python.tar.gz"]),
        ({"test_batch": b""}, {}, ["test_batch is not a python CIFAR-10 batch"]),
        ({"test_batch": b"\x80\x02junk"}, {}, ["test_batch is not a python CIFAR-10 batch"]),
        ({"test_batch": pickle.dumps([1])}, {}, ["it has no data and labels"]),
        ({"test_batch": pickle.dumps({"data": 1, "fine_labels": 2})}, {}, ["no data and labels"]),
        ({"test_batch": pickle.dumps({"data": 1, "labels": []})}, {}, ["data is not a uint8"]),
        ({"test_batch": pickle.dumps({"data": PIXELS, "labels": [1]})}, {}, ["(4, 3072), for 1"]),
        ({"test_batch": pickle.dumps({"data": PIXELS, "labels": [10] * 4})}, {}, ["0 to 9"]),
        ({"test_batch.bin": b"123"}, {}, ["test_batch.bin is not a binary", "3073"]),
        ({"test_batch.bin": b""}, {}, ["test_batch.bin is not a binary", "0 bytes"]),
        ({"test_batch.bin": b"\xff" * 3073}, {}, ["0 to 9"]),
        ({"data_batch_1": b""}, {"split": "train"}, ["lacks data_batch_2, data_batch_3"]),
        ({}, {"split": "val"}, ["--data-arg split=val", "test and train"]),
        ({}, {"train": True}, ["--data-arg train", "accepts split"]),
    ],
)
def test_wrong_batches_are_told_in_one_line(
    tmp_path: Path, files: dict[str, bytes], args: dict[str, object], words: list[str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="--data") as caught:
        open_data(f"cifar10:{tmp_path}", args, None)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
