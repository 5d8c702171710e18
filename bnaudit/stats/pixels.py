"""How pixels become the values of an image tensor, and back: what preprocessing does, as maths.

An encoding is affine in each channel. What else can go wrong is a change of the pixels themselves:
another order of the channels, another layout of the array, dark for bright.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 255
"""The brightest level of an 8-bit image."""

ROUNDINGS = 4
"""What an encoding adds up to: a division by 255, a subtraction, a division by the deviation."""

Change = Callable[[Tensor], Tensor]
"""A change of pixels (…, C, H, W) that keeps their shape."""


@dataclass(frozen=True)
class Constants:
    """A mean and a deviation for each channel, and what they are called."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Constants("ImageNet's mean and deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MNIST = Constants("MNIST's mean and deviation", (0.1307,), (0.3081,))


@dataclass(frozen=True)
class Encoding:
    """x = scale·p + offset for pixels p in [0, 1]; a factor and an offset for each channel."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def unit(cls, channels: int) -> Encoding:
        """The pixels themselves."""
        return cls((1.0,) * channels, (0.0,) * channels)

    def times(self, factor: float) -> Encoding:
        """The same, then multiplied."""
        return Encoding(
            tuple(a * factor for a in self.scale), tuple(b * factor for b in self.offset)
        )

    def minus(self, mean: tuple[float, ...]) -> Encoding:
        """The same, then less a mean."""
        return Encoding(self.scale, tuple(b - m for b, m in zip(self.offset, mean, strict=True)))

    def normalised(self, by: Constants) -> Encoding:
        """The same, then (x − mean)/std."""
        centred = self.minus(by.mean)
        return Encoding(
            tuple(a / s for a, s in zip(centred.scale, by.std, strict=True)),
            tuple(b / s for b, s in zip(centred.offset, by.std, strict=True)),
        )

    def reversed(self) -> Encoding:
        """The constants of the channels in reverse order."""
        return Encoding(self.scale[::-1], self.offset[::-1])

    def encode(self, pixels: Tensor) -> Tensor:
        """Values from pixels, both (…, C, H, W)."""
        return pixels * _wide(self.scale, pixels) + _wide(self.offset, pixels)

    def decode(self, values: Tensor) -> Tensor:
        """Pixels from values, both (…, C, H, W)."""
        return (values - _wide(self.offset, values)) / _wide(self.scale, values)


def _wide(constants: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(constants, dtype=like.dtype, device=like.device).view(-1, 1, 1)


def as_they_are(pixels: Tensor) -> Tensor:
    """No change."""
    return pixels


def channels_reversed(pixels: Tensor) -> Tensor:
    """BGR from RGB, and back."""
    return pixels.flip(-3)


def rows_and_columns_swapped(pixels: Tensor) -> Tensor:
    """Each square image transposed; others keep their shape and stay as they are."""
    square = pixels.shape[-1] == pixels.shape[-2]
    return pixels.transpose(-1, -2).contiguous() if square else pixels


def inverted(pixels: Tensor) -> Tensor:
    """Dark for bright, and back."""
    return 1 - pixels


def transposed_not_reshaped(pixels: Tensor) -> Tensor:
    """The image whose array (H, W, C) had been reshaped to (C, H, W) instead of transposed."""
    *batch, channels, height, width = pixels.shape
    return pixels.reshape(*batch, height, width, channels).movedim(-1, -3).contiguous()


@dataclass(frozen=True)
class Spread:
    """What decoded pixels look like: their `low` and `high` end (0.1% and 99.9% quantile), and the
    share that are `whole_levels` of 8 bits, k/255; None where the values are too coarse to tell."""

    low: float
    high: float
    whole_levels: float | None


def spread(values: Tensor, encoding: Encoding) -> Spread:
    """The spread of the pixels, if `values` (N, C, H, W) were made by `encoding`.

    A level counts as whole where it lies within a few roundings of the values' dtype, which have to
    be less than a twentieth of a level: by chance a tenth of the levels would pass at most.
    """
    wide = values.double()
    pixels = encoding.decode(wide)
    scale, offset = (_wide(c, wide).abs() for c in (encoding.scale, encoding.offset))
    rounding = ROUNDINGS * torch.finfo(values.dtype).eps * (wide.abs() + scale + offset)
    tolerance = LEVELS * rounding / scale
    whole = None
    if float(tolerance.max()) <= 0.05:
        levels = LEVELS * pixels
        whole = float(((levels - levels.round()).abs() <= tolerance).double().mean())
    ordered = pixels.flatten().sort().values
    last = len(ordered) - 1
    return Spread(float(ordered[round(0.001 * last)]), float(ordered[round(0.999 * last)]), whole)


def roughness(values: Tensor) -> float:
    """How much neighbouring columns of images (N, C, H, W) differ: the mean squared difference
    against that of unrelated values, 2·variance. Near 0 in photographs, 1 in noise."""
    wide = values.double()
    between = (wide[..., 1:] - wide[..., :-1]).square().mean()
    return float(between / (2 * wide.var(correction=0)).clamp(min=1e-300))
