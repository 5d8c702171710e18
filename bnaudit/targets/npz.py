"""`npz:FILE`: arrays `x` and `y` of a NumPy archive as a dataset."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bnaudit.errors import InputError
from bnaudit.targets.arrays import ImageArray, TensorArray, Transform
from bnaudit.targets.messages import did_you_mean, listed, one_line

Array = NDArray[np.generic]

_CHANNELS = (1, 3, 4)


def open_npz(
    file: Path, split: str | None, transform: Transform | None, *, said: str
) -> tuple[Dataset[object], bool, str]:
    """The dataset of an archive, whether it has labels, and what it is in words.

    Arrays `x` and `y`, or `x_NAME` and `y_NAME` for `split` NAME; without `y` there are no labels.
    uint8 `x` are images, (N, H, W) grey, (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels;
    where both of the latter fit, channels last is taken, and the description says so. Floating `x`
    are values of any shape (N, ...). Nothing is unpickled.

    InputError, which begins with `said`: not such an archive, no such arrays (the message lists
    those there are), arrays of another kind, shape or length, or no samples.
    """
    suffix = "" if split is None else f"_{split}"
    with _opened(file, said) as archive:
        _check_name(archive.files, f"x{suffix}", split, said)
        x = _read(archive, f"x{suffix}", said)
        y = _read(archive, f"y{suffix}", said) if f"y{suffix}" in archive.files else None
    if x.ndim < 2:
        raise InputError(f"{said}: x{suffix} has shape {x.shape}: samples are its first axis")
    if len(x) == 0:
        raise InputError(f"{said}: x{suffix} has no samples")
    labels = None if y is None else _labels(y, len(x), f"y{suffix}", said)
    dataset, kind = _dataset(x, labels, transform, f"{said}: x{suffix}")
    labelled = "without labels" if labels is None else f"{len(np.unique(labels))} different labels"
    return dataset, labels is not None, f"{len(x)} {kind}, {labelled}"


def _opened(file: Path, said: str) -> NpzFile:
    if not zipfile.is_zipfile(file):
        raise InputError(
            f"{said} is not an .npz archive: write it with numpy.savez(FILE, x=x, y=y)"
        )
    opened: NpzFile = np.load(file, allow_pickle=False)
    return opened


def _check_name(names: Sequence[str], wanted: str, split: str | None, said: str) -> None:
    if wanted in names:
        return
    there = f"{said} has no array {wanted}: the archive has {listed(names)}"
    splits = [name.removeprefix("x_") for name in names if name.startswith("x_")]
    if splits:
        hint = "" if split is None else did_you_mean(split, splits)
        first = " or ".join(f"--data-arg split={name}" for name in splits[:4])
        raise InputError(f"{there}{hint or f'; give {first}'}")
    raise InputError(f"{there}{'; leave out split' if 'x' in names else ''}")


def _read(archive: NpzFile, name: str, said: str) -> Array:
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise InputError(f"{said}: array {name} cannot be read: {error}") from error
        raise InputError(
            f"{said}: {name} is an array of Python objects, which only unpickling could read: save "
            f"it with a numeric dtype, such as {name}.astype('float32')"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{said}: array {name} is damaged: {one_line(error)}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{said}: {name} is not a NumPy array")
    return array


def _labels(y: Array, samples: int, name: str, said: str) -> NDArray[np.int64]:
    if y.shape == (samples, 1):
        y = y[:, 0]
    if y.ndim == 1 and len(y) != samples:
        raise InputError(
            f"{said}: {name} has {len(y)} labels and {name.replace('y', 'x', 1)} {samples} samples"
        )
    if y.ndim != 1:
        raise InputError(
            f"{said}: {name} has shape {y.shape}: labels are one integer for each sample"
        )
    if y.dtype.kind not in "iu":
        raise InputError(
            f"{said}: {name} is {y.dtype}: labels are integers, from 0; save {name}.astype('int64')"
        )
    if int(y.min()) < 0:
        raise InputError(f"{said}: {name} has the label {y.min()}: labels count from 0")
    return y.astype(np.int64)


def _dataset(
    x: Array, labels: NDArray[np.int64] | None, transform: Transform | None, said: str
) -> tuple[Dataset[object], str]:
    if x.dtype.kind == "f":
        values = np.ascontiguousarray(x, dtype=np.float32)
        return TensorArray(values, labels, transform), f"samples of {_size(x.shape[1:])}"
    if x.dtype != np.uint8:
        raise InputError(f"{said} is {x.dtype}: save images as uint8, other values as float32")
    images, kind = _channels_last(x, said)
    return ImageArray(images.view(np.uint8), labels, transform), kind


def _channels_last(x: Array, said: str) -> tuple[Array, str]:
    """uint8 images of any layout as (N, H, W, C), and what they are in words."""
    if x.ndim == 3:
        return x[..., None], f"grey images of {_size(x.shape[1:])}"
    if x.ndim == 4:
        last, first = x.shape[3] in _CHANNELS, x.shape[1] in _CHANNELS
        if last:
            both = " (read as channels last; channels first would fit too)" if first else ""
            return x, f"images of {_size(x.shape[1:])}{both}"
        if first:
            return x.transpose(0, 2, 3, 1), f"images of {_size(x.shape[1:])} (channels first)"
    raise InputError(
        f"{said} has shape {x.shape}: uint8 images are (N, H, W), (N, H, W, C) or (N, C, H, W) "
        "with 1, 3 or 4 channels"
    )


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)
