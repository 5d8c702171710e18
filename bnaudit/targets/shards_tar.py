"""`tar:PATTERN`: images and labels in tar files, laid out as WebDataset's shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from bnaudit.errors import InputError
from bnaudit.targets.arrays import Transform
from bnaudit.targets.encoded import EncodedImages
from bnaudit.targets.messages import listed
from bnaudit.targets.open_files import OpenFiles
from bnaudit.targets.shards_pattern import shard_files
from bnaudit.targets.tar_index import LABELS, Piece, Shard, Wanted, read_index

FIELDS = ("label", "cls")
"""Keys of a JSON member that hold a label; the first that is there counts."""

_LARGEST_LABEL = 1 << 20
_THREADS = 8
_ABSENT = -1


class TarImages(EncodedImages):
    """The images of tar shards, read where they stand: no shard is unpacked, none read in order.

    What is kept of a sample are numbers and its name, in arrays: millions of them fit, and other
    processes share them.

    `labelled`: whether samples have labels; one that has none is then amiss. `field`: the key of
    the label in a JSON member; None for the first of `FIELDS`.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        transform: Transform | None,
        *,
        labelled: bool,
        field: str | None,
    ) -> None:
        super().__init__(transform)
        self.labelled = labelled
        self._field = field
        self._files = [shard.file for shard in shards]
        samples = [sample for shard in shards for sample in shard.samples]
        self._shard = np.repeat(np.arange(len(shards)), [len(shard.samples) for shard in shards])
        self._images = _places([sample.image for sample in samples])
        self._labels = _places([sample.label for sample in samples])
        names = [sample.name.encode(errors="replace") for sample in samples]
        self._names = b"".join(names)
        self._name_ends = np.array([0, *accumulate(map(len, names))])
        self._extensions = sorted({sample.label_extension for sample in samples})
        numbers = {extension: number for number, extension in enumerate(self._extensions)}
        self._extension = np.array([numbers[sample.label_extension] for sample in samples])
        self._open = OpenFiles()

    def __len__(self) -> int:
        return len(self._shard)

    def encoded(self, index: int) -> bytes:
        """The member that is the image."""
        offset, size = map(int, self._images[index])
        if size == _ABSENT:
            raise ValueError("a label without an image")
        return self._open.read(self._file(index), offset, size)

    def label(self, index: int) -> int | None:
        """What the member beside the image says."""
        if not self.labelled:
            return None
        offset, size = map(int, self._labels[index])
        if size == _ABSENT:
            raise ValueError("an image without a label, which others have")
        if size > _LARGEST_LABEL:
            raise ValueError(f"its label has {size:,} bytes")
        text = self._open.read(self._file(index), offset, size)
        return label_in(text, self._extensions[self._extension[index]], self._field)

    def source_of(self, index: int) -> str:
        """`shard.tar:member.jpg`."""
        start, end = self._name_ends[index : index + 2]
        return f"{self._file(index)}:{self._names[start:end].decode()}"

    def _file(self, index: int) -> Path:
        return self._files[int(self._shard[index])]


def open_tar(
    pattern: str, args: Mapping[str, object], transform: Transform | None, *, said: str
) -> tuple[TarImages, str]:
    """The images of the shards that a pattern names, and what they are in words.

    `args`: `image`, the extension of the images (default: any that images have), and `label`, that
    of the labels (default: cls, or json with one of `FIELDS`), or `json:FIELD`.

    InputError, which begins with `said`: as `shard_files` and `read_index`, or no images.
    """
    wanted, field = _wanted(args)
    files = shard_files(pattern, said=said)
    with ThreadPoolExecutor(_THREADS) as pool:  # headers lie apart: each is waited for on its own
        shards = list(pool.map(lambda file: read_index(file, wanted, said=said), files))
    other = sum((shard.other for shard in shards), Counter[str]())
    samples = [sample for shard in shards for sample in shard.samples]
    if not any(sample.image for sample in samples):
        raise InputError(f"{said}: {_no_images(other, len(files))}")
    labelled = _labelled(shards, wanted, args)
    if "label" in args and not labelled:
        extensions = listed(sorted(extension for extension in other if extension))
        raise InputError(
            f"{said}: no image has a label .{wanted.labels[0]} beside it; other members are "
            f"{extensions}"
        )
    images = TarImages(shards, transform, labelled=labelled, field=field)
    return images, _words(images, len(files), other)


def label_in(text: bytes, extension: str, field: str | None) -> int:
    """The label in a member. ValueError: there is none, or it is no integer from 0."""
    if not extension.endswith("json"):
        return _class_number(text.decode(errors="replace").strip())
    content = json.loads(text)
    names = FIELDS if field is None else (field,)
    found = next((name for name in names if isinstance(content, dict) and name in content), None)
    if found is None:
        raise ValueError(f"its {extension} has no {' or '.join(names)}")
    return _class_number(content[found])


def _class_number(value: Any) -> int:
    if isinstance(value, str):
        value = int(value) if value.lstrip("-").isdecimal() else value
    if type(value) is not int:
        raise ValueError(f"its label is {str(value)[:40]!r}, not an integer")
    if not 0 <= value < 2**63:
        raise ValueError(f"its label is {value}: labels count from 0")
    return value


def _wanted(args: Mapping[str, object]) -> tuple[Wanted, str | None]:
    labels: tuple[str, ...] = LABELS
    field = None
    if "label" in args:
        extension, colon, rest = str(args["label"]).partition(":")
        labels, field = (extension.removeprefix(".").lower(),), rest if colon else None
    if "image" in args:
        return Wanted((str(args["image"]).removeprefix(".").lower(),), labels), field
    return Wanted(labels=labels), field


def _labelled(shards: Sequence[Shard], wanted: Wanted, args: Mapping[str, object]) -> bool:
    """Whether the images have labels. A JSON that nobody named may be about something else."""
    beside = (
        (shard.file, sample.label, sample.label_extension)
        for shard in shards
        for sample in shard.samples
        if sample.image is not None and sample.label is not None
    )
    file, label, extension = next(beside, (None, None, ""))
    if file is None or label is None:
        return False
    return "label" in args or extension != "json" or _may_have_label(file, label)


def _may_have_label(file: Path, piece: Piece) -> bool:
    try:
        content = json.loads(OpenFiles().read(file, piece.offset, piece.size))
    except ValueError:  # told with its sample
        return True
    return isinstance(content, dict) and not content.keys().isdisjoint(FIELDS)


def _places(pieces: Sequence[Piece | None]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Offset and size of each piece, int64 (n, 2); of none, `_ABSENT`."""
    rows = [(_ABSENT, _ABSENT) if piece is None else (piece.offset, piece.size) for piece in pieces]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _no_images(other: Counter[str], files: int) -> str:
    extensions = [f"{count} .{name}" for name, count in other.most_common() if name]
    what = f"its members are {listed(extensions)}" if extensions else "it has no members"
    what = what if files == 1 or not extensions else f"their {what.removeprefix('its ')}"
    hint = "; name the images with --data-arg image=EXTENSION" if extensions else ""
    return f"no images in {files} tar file{'s' if files > 1 else ''}: {what}{hint}"


def _words(images: TarImages, files: int, other: Counter[str]) -> str:
    labels = "" if images.labelled else " without labels"
    left = sum(other.values())
    rest = f"; {left} other members left out" if left else ""
    return f"{len(images)} images{labels} in {files} tar file{'s' if files > 1 else ''}{rest}"
