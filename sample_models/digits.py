"""A small residual network for 8×8 digits, and the transforms that go with it.

All checkpoints of this folder are state dicts of one architecture, `model()`. They were trained
by `train.py` on scikit-learn's `load_digits` (UCI "Optical Recognition of Handwritten Digits",
Alpaydin & Kaynak 1998, CC BY 4.0), stored in `digits.npz`.

Every factory takes no arguments and returns the object, so that it can be named on the command
line: `--model sample_models/digits.py:model --transform sample_models/digits.py:transform`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SHAPE = (1, 8, 8)
CLASSES = 10
WIDTHS = (16, 32)
BLOCKS_PER_STAGE = 2


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution without bias; the BatchNorm behind it would cancel a bias."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """Two convolutions and a skip, with the second BatchNorm after the addition.

    That is the "BN after addition" block of He et al. 2016 ("Identity Mappings in Deep Residual
    Networks", arXiv:1603.05027, Fig. 4b). It normalises the skip along with the branch, so no
    path goes around the BatchNorm layers: errors of their statistics reach the output, as in a
    plain stack. The usual block, whose skip is left alone, hides much of the noise of small
    batches.

    Shapes: (N, channels_in, H, W) -> (N, channels_out, H / stride, W / stride).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.skip = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add branch and skip, then normalise and rectify the sum."""
        branch = self.conv2(functional.relu(self.bn1(self.conv1(x))))
        return functional.relu(self.bn2(branch + self.skip(x)))


class DigitsNet(nn.Module):
    """A stem and four residual blocks in two stages: 9 BatchNorm layers, 42,874 parameters.

    Shapes: (N, 1, 8, 8) with values in [0, 1] -> logits (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv3x3(IMAGE_SHAPE[0], WIDTHS[0])
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        blocks: list[ResidualBlock] = []
        channels = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for position in range(BLOCKS_PER_STAGE):
                halves_the_map = stage > 0 and position == 0
                blocks.append(ResidualBlock(channels, width, stride=2 if halves_the_map else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit per class, from the average over the last map."""
        maps = self.blocks(functional.relu(self.bn(self.conv(images))))
        return self.classifier(maps.mean(dim=(2, 3)))


@dataclass(frozen=True)
class ToTensor:
    """One image -> float tensor (1, 8, 8) of clip(contrast · pixel + offset, 0, 1).

    Takes a PIL image of mode "L" or an array of 64 values. Integers count as 0 to 255,
    floating-point values as already in [0, 1].
    """

    contrast: float = 1.0
    offset: float = 0.0

    def __call__(self, image: Any) -> Tensor:
        """Return the image as the network takes it."""
        array = np.asarray(image)
        full_scale = 255.0 if np.issubdtype(array.dtype, np.integer) else 1.0
        pixels = torch.tensor(array.reshape(IMAGE_SHAPE) / full_scale, dtype=torch.float32)
        return (self.contrast * pixels + self.offset).clamp(0.0, 1.0)


def model() -> DigitsNet:
    """Return the network with fresh weights."""
    return DigitsNet()


def transform() -> Callable[[Any], Tensor]:
    """Return the transform of training: pixels in [0, 1], nothing else."""
    return ToTensor()


def brighter() -> Callable[[Any], Tensor]:
    """Return the transform of a camera that overexposes: 0.3 added, cut off at white (1)."""
    return ToTensor(offset=0.3)


def low_contrast() -> Callable[[Any], Tensor]:
    """Return the transform of a hazy lens: half the contrast, greys in [0.25, 0.75]."""
    return ToTensor(contrast=0.5, offset=0.25)
