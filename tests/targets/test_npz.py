from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bnaudit.errors import InputError
from bnaudit.targets.data import DataTarget, open_data

RNG = np.random.default_rng(0)


def uint8(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def opened(folder: Path, transform: Any = None, split: object = None, **arrays: Any) -> DataTarget:
    np.savez(folder / "set.npz", **arrays)
    return open_data(f"npz:{folder}/set.npz", {} if split is None else {"split": split}, transform)


@pytest.mark.parametrize(
    ("shape", "axes", "mode"),
    [
        ((2, 8, 9), (None, 0, 1), "L"),
        ((2, 8, 9, 1), (2, 0, 1), "L"),
        ((2, 8, 9, 3), (2, 0, 1), "RGB"),
        ((2, 8, 9, 4), (2, 0, 1), "RGBA"),
        ((2, 1, 8, 9), (0, 1, 2), "L"),
        ((2, 3, 8, 9), (0, 1, 2), "RGB"),
        ((2, 4, 8, 9), (0, 1, 2), "RGBA"),
    ],
)
def test_uint8_arrays_are_images_in_any_layout(
    tmp_path: Path, shape: tuple[int, ...], axes: tuple[int | None, ...], mode: str
) -> None:
    x = uint8(*shape)
    expected = x[1][None] if axes[0] is None else x[1].transpose(axes)
    plain = opened(tmp_path, x=x).dataset[1]
    np.testing.assert_array_equal(plain.numpy(), expected.astype(np.float32) / np.float32(255))
    image = opened(tmp_path, lambda image: image, x=x).dataset[1]
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == (mode, (9, 8))
    assert image.getpixel((5, 2)) == (
        expected[0, 2, 5] if mode == "L" else tuple(expected[:, 2, 5])
    )


def test_an_ambiguous_layout_is_channels_last_and_said_so(tmp_path: Path) -> None:
    target = opened(tmp_path, x=uint8(2, 3, 5, 3))
    assert target.dataset[0].shape == (3, 3, 5)
    assert "channels last" in target.description


def test_float_arrays_are_used_as_they_are(tmp_path: Path) -> None:
    x = RNG.normal(size=(3, 2, 4, 4))
    value = opened(tmp_path, x=x).dataset[2]
    assert value.dtype == torch.float32
    np.testing.assert_array_equal(value.numpy(), x[2].astype(np.float32))


def test_a_transform_gets_the_float_tensor_and_cannot_change_the_data(tmp_path: Path) -> None:
    dataset = opened(tmp_path, Tensor.neg_, x=np.ones((3, 4))).dataset
    assert [dataset[0].sum().item() for _ in range(2)] == [-4.0, -4.0]


def test_labels_are_integers_beside_the_image(tmp_path: Path) -> None:
    target = opened(tmp_path, x=uint8(2, 8, 8), y=np.array([[7], [1]], dtype=np.uint8))
    assert target.dataset[0][1] == 7
    assert type(target.dataset[0][1]) is int
    assert (target.labelled, target.classes) == (True, None)


def test_without_labels_a_sample_is_the_image(tmp_path: Path) -> None:
    target = opened(tmp_path, x=uint8(2, 8, 8))
    assert target.labelled is False
    assert isinstance(target.dataset[0], Tensor)


def test_a_split_selects_its_arrays(tmp_path: Path) -> None:
    target = opened(
        tmp_path,
        split="test",
        x_train=np.array([object()], dtype=object),
        x_test=uint8(2, 8, 8),
        y_test=np.array([4, 5]),
    )
    assert (len(target.dataset), target.dataset[1][1]) == (2, 5)


def test_a_split_may_look_like_a_number(tmp_path: Path) -> None:
    assert len(opened(tmp_path, split=1, x_1=uint8(2, 8, 8)).dataset) == 2


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", x=uint8(2, 8, 8))
    assert len(open_data(f"npz:{tmp_path}/set.npz", {}, None).dataset) == 2


X = uint8(2, 8, 8)


@pytest.mark.parametrize(
    ("arrays", "split", "words"),
    [
        ({"images": X}, None, ["no array x", "the archive has images"]),
        (
            {"x_train": X, "x_test": X},
            None,
            ["the archive has x_train, x_test", "--data-arg split=train"],
        ),
        ({"x_train": X, "x_test": X}, "tset", ["no array x_tset", "did you mean test?"]),
        ({"x": X}, "test", ["no array x_test", "leave out split"]),
        ({"x": X, "y": np.arange(3)}, None, ["y has 3 labels and x 2 samples"]),
        ({"x": X, "y": np.zeros((2, 10))}, None, ["y has shape (2, 10)", "one integer"]),
        ({"x": X, "y": np.zeros(2)}, None, ["y is float64", "astype('int64')"]),
        ({"x": X, "y": np.array([0, -1])}, None, ["y has the label -1"]),
        ({"x": X, "y": np.array(["a", "b"])}, None, ["y is <U1"]),
        ({"x": np.array([object()] * 2)}, None, ["x is an array of Python objects"]),
        ({"x": X, "y": np.array([object()] * 2)}, None, ["y is an array of Python objects"]),
        ({"x": X[:0]}, None, ["x has no samples"]),
        ({"x": np.float32(3)}, None, ["x has shape ()"]),
        ({"x": np.zeros(4)}, None, ["x has shape (4,)"]),
        ({"x": X.astype(np.int64)}, None, ["x is int64", "uint8", "float32"]),
        ({"x": uint8(2, 8, 8, 2)}, None, ["shape (2, 8, 8, 2)", "1, 3 or 4 channels"]),
        ({"x": uint8(2, 8)}, None, ["shape (2, 8)", "(N, H, W)"]),
    ],
)
def test_wrong_arrays_are_told_in_one_line(
    tmp_path: Path, arrays: dict[str, Any], split: object, words: list[str]
) -> None:
    with pytest.raises(InputError, match=f"--data npz:{tmp_path}/set.npz") as caught:
        opened(tmp_path, split=split, **arrays)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_files_that_are_no_archives_are_said_so(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "half.npz", x=X)
    whole = (tmp_path / "half.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    for name in ["array", "text", "half"]:
        with pytest.raises(InputError, match=r"is not an \.npz archive: .*savez"):
            open_data(f"npz:{tmp_path}/{name}.npz", {}, None)


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((4, 64, 64), np.uint8))
    content = bytearray((tmp_path / "set.npz").read_bytes())
    content[9000] ^= 255
    (tmp_path / "set.npz").write_bytes(bytes(content))
    with pytest.raises(InputError, match="array x is damaged"):
        open_data(f"npz:{tmp_path}/set.npz", {}, None)
