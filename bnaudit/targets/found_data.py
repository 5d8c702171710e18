"""Data that lie in a folder in one of the usual forms."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from bnaudit.errors import InputError
from bnaudit.targets.data import DataTarget, open_data

Part = Literal["held out", "unnamed", "training"]

PLACES = ("", "data", "dataset", "datasets", "images", "imagenet", "cifar10", "cifar-10")
"""Folders in which data are looked for, below the one that is given."""

HELD_OUT = ("val", "valid", "validation", "eval", "heldout", "held_out", "test", "testing")
"""How held-out data are called, those that are most likely labelled and looked at first."""

TRAINING = ("train", "training")

ENTRIES = 2000
"""Entries of a folder that are looked at to tell whether it holds images."""

SIZES = 64
"""Images whose size is looked at."""

_UNNAMED = len(HELD_OUT)
_LAST = _UNNAMED + 1


@dataclass(frozen=True)
class FoundData:
    """Data as `--data` and `--data-arg` name them; `part`: what their name says they are."""

    spec: str
    part: Part
    args: Mapping[str, object] = field(default_factory=dict, compare=False)


def find_data(folder: Path) -> list[FoundData]:
    """What looks like data in a folder and the usual folders in it, the likeliest first.

    Image folders, `.npz` archives with arrays x or x_NAME, and CIFAR-10's batches. Held-out data,
    by their name, come before data without such a name, and training data last; nothing is opened
    to its end.
    """
    found: list[tuple[int, FoundData]] = []
    for place in PLACES:
        with suppress(OSError):  # a folder that may not be read
            found += _in(folder / place)
    return [one for _, one in sorted(found, key=lambda ranked: ranked[0])]


def opened(found: FoundData) -> DataTarget | None:
    """The data, where they can be opened; None where they cannot."""
    try:
        return open_data(found.spec, found.args, None)
    except (InputError, OSError, RuntimeError):  # the latter for a folder called ~name
        return None


def image_sizes(spec: str) -> set[tuple[int, int]]:
    """The sizes of some images of an image folder; empty for other data."""
    kind, _, folder = spec.partition(":")
    sizes = set()
    if kind == "imagefolder":
        for path in islice(_images(Path(folder)), SIZES):
            try:
                with Image.open(path) as image:
                    sizes.add(image.size)
            except OSError:
                continue
    return sizes


def _in(folder: Path) -> Iterator[tuple[int, FoundData]]:
    """The data in a folder, each with how unlikely it is to be held out."""
    if not folder.is_dir():
        return
    if _has_cifar10(folder):
        yield 0, FoundData(f"cifar10:{folder}", "held out")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in entries:
        rank, part = _part(path.name)
        if path.is_dir() and rank is not None and _holds_images(path):
            yield rank, FoundData(f"imagefolder:{path}", part)
        elif path.suffix.lower() == ".npz" and path.is_file():
            yield from _in_archive(path)
    for path in entries:
        if path.is_dir() and _part(path.name)[0] is None and _holds_classes(path):
            yield _UNNAMED, FoundData(f"imagefolder:{path}", "unnamed")


def _part(name: str) -> tuple[int | None, Part]:
    """How likely data of this name are held out, 0 the likeliest; None where it does not say."""
    lower = name.lower()
    if lower in HELD_OUT:
        return HELD_OUT.index(lower), "held out"
    return (_LAST, "training") if lower in TRAINING else (None, "unnamed")


def _in_archive(path: Path) -> Iterator[tuple[int, FoundData]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return
    for name in names:
        if name == "x":
            said = next((w for w in (*HELD_OUT, *TRAINING) if w in path.stem.lower()), "")
            rank, part = _part(said)
            yield _UNNAMED if rank is None else rank, FoundData(f"npz:{path}", part)
        elif name.startswith("x_"):
            split = name.removeprefix("x_")
            rank, part = _part(split)
            found = FoundData(f"npz:{path}", part, {"split": split})
            yield _UNNAMED if rank is None else rank, found


def _has_cifar10(folder: Path) -> bool:
    return any(
        (folder / place / f"test_batch{suffix}").is_file()
        for place, suffix in (
            ("", ""),
            ("", ".bin"),
            ("cifar-10-batches-py", ""),
            ("cifar-10-batches-bin", ".bin"),
        )
    )


def _holds_images(folder: Path) -> bool:
    return next(_images(folder), None) is not None


def _holds_classes(folder: Path) -> bool:
    """Whether there are at least two subfolders with images, none of them a part of the data."""
    subfolders = [path for path in islice(folder.iterdir(), ENTRIES) if path.is_dir()]
    if len(subfolders) < 2 or any(_part(path.name)[0] is not None for path in subfolders):
        return False
    return all(_holds_images(path) for path in subfolders[:3])


def _images(folder: Path) -> Iterator[Path]:
    """Images in a folder, then some of each of its subfolders."""
    try:
        entries = sorted(islice(folder.iterdir(), ENTRIES))
        yield from (path for path in entries if _is_image(path))
        for subfolder in entries:
            if subfolder.is_dir() and not subfolder.name.startswith("."):
                inside = islice(subfolder.iterdir(), ENTRIES)
                yield from islice((path for path in sorted(inside) if _is_image(path)), 4)
    except OSError:
        return


def _is_image(path: Path) -> bool:
    named = path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")
    return named and path.is_file()
