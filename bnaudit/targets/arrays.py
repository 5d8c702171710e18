"""Arrays in memory as a map-style dataset of images or tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bnaudit.targets.transforms import as_tensor

Transform = Callable[[Any], Any]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageArray(Dataset[Any]):
    """Pictures of one size: uint8 (N, H, W, C) with C of 1 (grey), 3 (RGB) or 4 (RGBA).

    A sample is what the transform makes of the Pillow image, or without one a float32 tensor
    (C, H, W) in 0 to 1; beside it the label as an int, where there are labels (N,).
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64] | None,
        transform: Transform | None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform or as_tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        pixels = np.ascontiguousarray(self.images[index])
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return _with_label(self.transform(image), self.labels, index)


class TensorArray(Dataset[Any]):
    """Values as they are: float32 (N, ...). The transform, if any, gets a sample's tensor."""

    def __init__(
        self,
        values: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        transform: Transform | None,
    ) -> None:
        self.values = torch.from_numpy(values)
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        value: Any = self.values[index]
        if self.transform is not None:
            # A copy: a transform that works in place would change what the next pass reads.
            value = self.transform(value.clone())
        return _with_label(value, self.labels, index)


def mode_of(channels: int) -> str | None:
    """Pillow's name for images of so many uint8 channels; None where it has none."""
    return _MODES.get(channels)


def _with_label(value: Any, labels: NDArray[np.int64] | None, index: int) -> Tensor | Any:
    return value if labels is None else (value, int(labels[index]))
