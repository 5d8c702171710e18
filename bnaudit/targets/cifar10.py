"""`cifar10:DIR`: CIFAR-10's python or binary batches as a dataset, without trusting the pickles."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnaudit.errors import InputError
from bnaudit.targets.arrays import ImageArray, Transform
from bnaudit.targets.messages import one_line

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SPLITS = ("test", "train")

_FILES = {"test": ("test_batch",), "train": tuple(f"data_batch_{i}" for i in range(1, 6))}
_PIXELS = 3 * 32 * 32

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def open_cifar10(
    folder: Path, split: str, transform: Transform | None, *, said: str
) -> tuple[ImageArray, str]:
    """The 10,000 test or 50,000 train images that a folder holds, and what they are in words.

    The batches are in the folder itself or in the subfolder that the published archives unpack to,
    python batches (`test_batch`) or binary ones (`test_batch.bin`).

    InputError, which begins with `said`: files missing, damaged, or pickles that hold anything but
    arrays and plain containers; those are refused before anything of theirs runs.
    """
    files, read = _find(folder, split, said)
    batches = [read(file, f"{said}: {file.name}") for file in files]
    pixels = np.concatenate([pixels for pixels, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return ImageArray(images, labels, transform), f"{split}, {len(images)} images, 10 classes"


def _find(folder: Path, split: str, said: str) -> tuple[list[Path], Callable[[Path, str], Batch]]:
    kinds = (("cifar-10-batches-py", "", _python_batch), ("cifar-10-batches-bin", ".bin", _binary))
    lacking = ""
    for subfolder, suffix, read in kinds:
        for place in (folder, folder / subfolder):
            files = [place / f"{name}{suffix}" for name in _FILES[split]]
            missing = [file.name for file in files if not file.is_file()]
            if not missing:
                return files, read
            if len(missing) < len(files):
                lacking = f"{said}: {place} lacks {', '.join(missing)}"
    if lacking:
        raise InputError(lacking)
    names = f"{_FILES[split][0]} or {_FILES[split][0]}.bin"
    packed = [file.name for file in sorted(folder.glob("cifar-10-*.tar.gz"))]
    remedy = f"unpack {packed[0]} there" if packed else "CIFAR-10's python or binary batches"
    raise InputError(
        f"{said} has no {names}, nor have its cifar-10-batches-py and cifar-10-batches-bin: "
        f"{'' if packed else 'give the folder of '}{remedy}"
    )


def _binary(file: Path, said: str) -> Batch:
    raw = np.fromfile(file, dtype=np.uint8)
    if len(raw) == 0 or len(raw) % (_PIXELS + 1):
        raise InputError(
            f"{said} is not a binary CIFAR-10 batch: {len(raw)} bytes, not a multiple of 3073"
        )
    records = raw.reshape(-1, _PIXELS + 1)
    return records[:, 1:], _labels(records[:, 0], said)


def _python_batch(file: Path, said: str) -> Batch:
    try:
        with file.open("rb") as stream:
            content = _PlainUnpickler(stream, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{said} {error}") from error
    except Exception as error:
        # A damaged pickle raises whatever its bytes happen to mean.
        raise InputError(f"{said} is not a python CIFAR-10 batch: {one_line(error)}") from error
    if isinstance(content, dict):
        content = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
    if not isinstance(content, dict) or not {"data", "labels"} <= content.keys():
        raise InputError(f"{said} is not a python CIFAR-10 batch: it has no data and labels")
    data, labels = content["data"], content["labels"]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2):
        raise InputError(f"{said}: data is not a uint8 array of N × 3072")
    if data.shape[1] != _PIXELS or len(data) != len(labels) or len(data) == 0:
        raise InputError(f"{said}: data has shape {data.shape}, for {len(labels)} labels")
    return data, _labels(np.asarray(labels), said)


def _labels(labels: NDArray[Any], said: str) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise InputError(f"{said}: labels are not all integers from 0 to 9")
    return labels.astype(np.int64)


def _dtype(name: str, *_: object) -> np.dtype[Any]:
    # A copy: the pickle goes on to set its state, and NumPy's own dtypes are shared by everyone.
    return np.dtype(name, align=False, copy=True)


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes into a pickle that Python 2 can read.
    if encoding != "latin1":
        raise InputError(f"holds text encoded as {encoding!r}: not a CIFAR-10 batch")
    return text.encode("latin1")


_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads NumPy arrays and builtin containers; any other name in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise InputError(
                f"is refused: it asks for {module}.{name}, and a pickle could run anything with "
                "it; a CIFAR-10 batch holds arrays and plain containers only"
            ) from None
