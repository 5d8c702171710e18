"""Where the images and labels of a tar shard are, from its headers: nothing is ever extracted."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torchvision.datasets.folder import IMG_EXTENSIONS

from bnaudit.errors import InputError
from bnaudit.regular_files import regular_file
from bnaudit.targets.messages import listed, one_line

IMAGES = tuple(extension.removeprefix(".") for extension in IMG_EXTENSIONS)
"""Extensions of images."""

LABELS = ("cls", "json")
"""Extensions of labels; the first that a sample has counts."""

_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)\Z", re.DOTALL)
"""As WebDataset has it: the key ends at the first dot of the name; hidden files have none."""

_META = re.compile(r"__[^/]*__($|/)")
"""Members that WebDataset passes over."""

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip -k"),
    b"BZh": ("bzip2", "bunzip2 -k"),
    b"\xfd7zXZ": ("xz", "unxz -k"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
}

_BLOCK = 512


@dataclass(frozen=True)
class Piece:
    """A stretch of a shard: where it begins and how long it is, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class TarSample:
    """The members of one key. `name`: of the image; of the label where there is no image."""

    name: str
    image: Piece | None
    label: Piece | None
    label_extension: str


@dataclass(frozen=True)
class Shard:
    """The samples of one tar file, in the order of their first members.

    `other`: how many members of each extension belong to no sample; "" stands for members that are
    no regular files, and for names without an extension.
    """

    file: Path
    samples: tuple[TarSample, ...]
    other: Counter[str]


@dataclass(frozen=True)
class Wanted:
    """The extensions of the members that are images, and of those that are labels."""

    images: tuple[str, ...] = IMAGES
    labels: tuple[str, ...] = LABELS


def read_index(file: Path, wanted: Wanted, *, said: str) -> Shard:
    """The samples of a tar file, from reading its headers once.

    Members belong together by their key, wherever in the file they stand; a key with labels alone
    is a sample without an image, if its label is of the first kind that is wanted. Links, folders
    and devices are no samples. Names are only names: they may be absolute, or lead upwards.

    InputError, which begins with `said`: not a tar file, a compressed one, a damaged or truncated
    one, two members of one name, or two images under one key.
    """
    keys: dict[str, dict[str, tuple[str, Piece]]] = {}
    other: Counter[str] = Counter()
    try:
        with regular_file(file) as opened:
            for member in _members(opened, file, said):
                _sort_in(member, wanted, keys, other, f"{said}: {file}")
    except OSError as error:
        raise InputError(f"{said}: {file} cannot be read: {one_line(error)}") from error
    samples = []
    for key, pieces in keys.items():
        sample = _sample(key, pieces, wanted, f"{said}: {file}")
        if sample is None:
            other.update(list(pieces))
        else:
            samples.append(sample)
    return Shard(file, tuple(samples), other)


def shown(name: str) -> str:
    """A member's name, on one line whatever it is."""
    return name if name.isprintable() else repr(name)


def _members(opened: BinaryIO, file: Path, said: str) -> Iterator[tarfile.TarInfo]:
    """The members, each with its data inside the file."""
    _check_plain(opened, file, said)
    end = opened.seek(0, 2)
    opened.seek(0)
    name, reached = "", 0
    try:
        with tarfile.open(fileobj=opened, mode="r:") as archive:
            while (member := archive.next()) is not None:
                name = shown(member.name)
                if member.offset_data + member.size > end or member.size < 0:
                    raise InputError(f"{said}: {file} ends in the middle of {name}: {_AGAIN}")
                if archive.offset <= reached:  # a size that leads backwards, round and round
                    raise InputError(f"{said}: {file} is damaged at {name}: {_AGAIN}")
                reached = archive.offset
                archive.members = []  # type: ignore[attr-defined]  # they would fill the memory
                yield member
            _check_end(opened, archive.offset, file, said)
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        if not reached:
            raise InputError(f"{said}: {file} is not a tar file") from error
        raise InputError(
            f"{said}: {file} is damaged or truncated after {name} ({one_line(error)}): {_AGAIN}"
        ) from error


_AGAIN = "copy or make it again"


def _check_plain(opened: BinaryIO, file: Path, said: str) -> None:
    start = opened.read(8)
    for magic, (kind, command) in _COMPRESSED.items():
        if start.startswith(magic):
            raise InputError(
                f"{said}: {file} is compressed ({kind}), and what is in it can only be read from "
                f"its start: decompress it with `{command} {file}`; images were small already"
            )


def _check_end(opened: BinaryIO, offset: int, file: Path, said: str) -> None:
    """That a tar file ends where Python stops reading it: of a damaged header it says nothing."""
    opened.seek(offset)
    block = opened.read(_BLOCK)
    if block.strip(b"\0"):
        raise InputError(f"{said}: {file} is damaged or truncated at byte {offset:,}: {_AGAIN}")


def _sort_in(
    member: tarfile.TarInfo,
    wanted: Wanted,
    keys: dict[str, dict[str, tuple[str, Piece]]],
    other: Counter[str],
    where: str,
) -> None:
    matched = _KEY_AND_EXTENSION.match(member.name)
    if not member.isreg() or member.issparse() or matched is None or _META.match(member.name):
        other[""] += 1
        return
    key, extension = matched[1], matched[2].lower()
    if extension not in wanted.images and extension not in wanted.labels:
        other[extension] += 1
        return
    pieces = keys.setdefault(key, {})
    if extension in pieces:
        raise InputError(
            f"{where} has two members {shown(member.name)}: which of them is meant cannot be told"
        )
    pieces[extension] = member.name, Piece(member.offset_data, member.size)


def _sample(
    key: str, pieces: dict[str, tuple[str, Piece]], wanted: Wanted, where: str
) -> TarSample | None:
    images = [extension for extension in wanted.images if extension in pieces]
    labels = [extension for extension in wanted.labels if extension in pieces]
    if len(images) > 1:
        options = " or ".join(f"--data-arg image={extension}" for extension in images)
        raise InputError(
            f"{where} has {len(images)} images of the key {shown(key)} ({listed(images)}): give "
            f"{options}"
        )
    label = pieces[labels[0]] if labels else None
    label_piece, extension = (label[1], labels[0]) if label else (None, "")
    if images:
        name, image = pieces[images[0]]
        return TarSample(shown(name), image, label_piece, extension)
    if label is None or extension != wanted.labels[0]:
        return None  # a file of its own, such as dataset_info.json
    return TarSample(shown(label[0]), None, label_piece, extension)
