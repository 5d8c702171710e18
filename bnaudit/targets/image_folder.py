"""`imagefolder:DIR`: images on disk, a subfolder for each class, or without labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from bnaudit.errors import InputError
from bnaudit.targets.arrays import Transform
from bnaudit.targets.encoded import EncodedImages

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval"}


class ImageFiles(EncodedImages):
    """Image files on disk, with as many `labels` where they are given."""

    def __init__(
        self, files: Sequence[str], labels: Sequence[int] | None, transform: Transform | None
    ) -> None:
        super().__init__(transform)
        self.files = files
        self.labels = labels

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> bytes:
        """The bytes of the file."""
        return Path(self.files[index]).read_bytes()

    def label(self, index: int) -> int | None:
        """The number of the class's folder."""
        return None if self.labels is None else self.labels[index]

    def source_of(self, index: int) -> str:
        """The path of the file."""
        return self.files[index]


def open_image_folder(
    folder: Path, transform: Transform | None, *, said: str
) -> tuple[ImageFiles, tuple[str, ...] | None, str]:
    """The images of a folder, its classes (None without), and what it is in words.

    As torchvision's ImageFolder: every subfolder is a class, numbered in sorted order, with the
    images anywhere below it; hidden subfolders are passed over. A folder without subfolders that
    has images itself is a set without labels.

    InputError, which begins with `said`: no such folder, no images, a subfolder without images
    (counted as a class, it would move the labels of all after it), or subfolders that are splits.
    """
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{said}: {folder} {kind}")
    subfolders = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    loose = _images_in(folder)
    if not subfolders:
        if not loose:
            raise InputError(f"{said}: {folder} has no images ({', '.join(IMG_EXTENSIONS)})")
        files = [str(path) for path in loose]
        return ImageFiles(files, None, transform), None, f"{len(files)} images without labels"
    return _with_classes(subfolders, len(loose), transform, said)


def _with_classes(
    subfolders: list[Path], loose: int, transform: Transform | None, said: str
) -> tuple[ImageFiles, tuple[str, ...], str]:
    classes = tuple(path.name for path in subfolders)
    if _SPLITS.issuperset(name.lower() for name in classes):
        raise InputError(
            f"{said}: its subfolders are splits, not classes ({', '.join(classes)}): give one of "
            f"them, as {said.partition(' ')[2].rstrip('/')}/{classes[0]}"
        )
    files: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, subfolder in enumerate(subfolders):
        found = _images_below(subfolder)
        files += map(str, found)
        labels += [label] * len(found)
        empty += [] if found else [subfolder.name]
    if not files:
        raise InputError(f"{said}: no images in it or its subfolders ({', '.join(IMG_EXTENSIONS)})")
    if empty:
        raise InputError(
            f"{said}: subfolder {empty[0]} has no images; it would count as a class and move the "
            "labels of those after it: take it away, or give the images back"
        )
    outside = f"; {loose} images outside them are left out" if loose else ""
    return (
        ImageFiles(files, labels, transform),
        classes,
        f"{len(files)} images, {len(classes)} classes{outside}",
    )


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path))


def _images_below(folder: Path) -> list[Path]:
    """All images under a folder, in torchvision's order: folder by folder, names sorted."""
    found: list[Path] = []
    for here, _, names in sorted(os.walk(folder, followlinks=True)):
        paths = [Path(here, name) for name in sorted(names)]
        found += [path for path in paths if _is_image(path)]
    return found


def _is_image(path: Path) -> bool:
    return (
        path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
