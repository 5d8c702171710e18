"""Images as they are kept: what image folders, tar shards and Parquet files have in common."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from bnaudit.targets.arrays import Transform
from bnaudit.targets.transforms import as_tensor


class EncodedImages(Dataset[Any], ABC):
    """Encoded images that can be read in any order, decoded by Pillow as RGB.

    A sample is what the transform makes of the image, or without one a float32 tensor (3, H, W) in
    0 to 1; beside it the label as an int, where the images have labels.
    """

    def __init__(self, transform: Transform | None) -> None:
        self.transform = transform or as_tensor

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The file of an image, whole."""

    @abstractmethod
    def label(self, index: int) -> int | None:
        """The label of an image, None where the images have none. ValueError: a label is amiss."""

    @abstractmethod
    def source_of(self, index: int) -> str:
        """Where an image comes from, such that it can be found."""

    def __getitem__(self, index: int) -> Any:
        label = self.label(index)
        value = self.transform(decoded(self.encoded(index)))
        return value if label is None else (value, label)


def decoded(encoded: bytes) -> Image.Image:
    """The image of a file of any format that Pillow reads, as RGB. OSError: it cannot."""
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            return opened.convert("RGB")
    except UnidentifiedImageError:  # Pillow names the buffer, by its address
        what = f"of {len(encoded)} bytes" if encoded else "that is empty"
        raise UnidentifiedImageError(f"cannot identify image file {what}") from None
