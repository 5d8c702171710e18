"""The digits as data sets, whole or few and noisy, and the shifts of the deployment data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset
from train import load_split

DIGITS = Path(__file__).resolve().parents[1] / "digits.npz"
SPLITS = ("train", "verify", "test")


@dataclass(frozen=True)
class Images:
    """Images (N, 1, 8, 8) in [0, 1] and their labels (N,)."""

    images: Tensor
    labels: Tensor

    def data(self) -> TensorDataset:
        """As bnaudit takes it."""
        return TensorDataset(self.images, self.labels)

    def first(self, count: int) -> Images:
        """The first `count` of them."""
        return Images(self.images[:count], self.labels[:count])

    def through(self, shift: Callable[[Tensor], Tensor]) -> Images:
        """The same digits as another camera sees them."""
        return Images(shift(self.images), self.labels)


def digits(split: str) -> Images:
    """The 900 `train`, 400 `verify` or 497 `test` images of `digits.npz`."""
    return Images(*load_split(DIGITS, split))


@dataclass(frozen=True)
class Affine:
    """clip(contrast · pixel + offset, 0, 1)."""

    contrast: float = 1.0
    offset: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Change the images."""
        return (self.contrast * images + self.offset).clamp(0, 1)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise added and clipped to [0, 1]; the same for the same `seed`."""

    deviation: float
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Change the images."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(images.shape, generator=generator)
        return (images + self.deviation * noise).clamp(0, 1)


@dataclass(frozen=True)
class Blur:
    """The mean over 3×3 pixels, black outside."""

    def __call__(self, images: Tensor) -> Tensor:
        """Change the images."""
        return functional.avg_pool2d(images, 3, stride=1, padding=1)


Shift = Affine | Noise | Blur

SHIFTS: dict[str, Shift] = {
    "brighter, x + 0.2": Affine(offset=0.2),
    "brighter, x + 0.3": Affine(offset=0.3),
    "contrast, 0.6 x + 0.2": Affine(0.6, 0.2),
    "contrast, 0.5 x + 0.25": Affine(0.5, 0.25),
    "fog, 0.5 x + 0.4": Affine(0.5, 0.4),
    "blur, 3×3 mean": Blur(),
    "noise 0.2": Noise(0.2),
    "noise 0.4": Noise(0.4),
}
"""The eight shifts, on pixels from 0 to 1."""
