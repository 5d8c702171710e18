"""The networks of the claims. `P12`: a plain stack. `R9`: a residual network, no norm on skips."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from digits import CLASSES, IMAGE_SHAPE, conv3x3
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]
"""From a position (the first is 0) to the normalisation that stands there."""

DEPTH = 12
WIDTH = 16
GROUPS = 4


class P12(nn.Module):
    """Twelve times 3×3 convolution, norm, ReLU at width 16, then the average and a linear layer.

    `norm(position)` makes the norm of that position, over 16 channels. 26,042 parameters with
    BatchNorm everywhere. Shapes: (N, 1, 8, 8) -> logits (N, 10).
    """

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        widths = [IMAGE_SHAPE[0]] + [WIDTH] * DEPTH
        self.convolutions = nn.ModuleList(
            conv3x3(before, after) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(norm(position) for position in range(DEPTH))
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit per class, from the average over the last map."""
        maps = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = functional.relu(norm(convolution(maps)))
        return self.classifier(maps.mean(dim=(2, 3)))


def batch_norm(position: int) -> nn.Module:
    """BatchNorm at every position."""
    return nn.BatchNorm2d(WIDTH)


def group_norm(position: int) -> nn.Module:
    """Group Norm with 4 groups at every position."""
    return nn.GroupNorm(GROUPS, WIDTH)


def group_norm_at_every_second(position: int) -> nn.Module:
    """BatchNorm at the first, third, … position and Group Norm at the others."""
    return group_norm(position) if position % 2 else batch_norm(position)


class BasicBlock(nn.Module):
    """The block of He et al. 2016 (arXiv:1512.03385): two convolutions, the skip left alone.

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
        """Normalise the branch, add the skip, rectify."""
        branch = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(branch + self.skip(x))


class R9(nn.Module):
    """A stem and four basic blocks, widths 16, 16, 32, 32: 9 BatchNorm layers, 42,874 parameters.

    Shapes: (N, 1, 8, 8) -> logits (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv3x3(IMAGE_SHAPE[0], 16)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(
            BasicBlock(16, 16, 1),
            BasicBlock(16, 16, 1),
            BasicBlock(16, 32, 2),
            BasicBlock(32, 32, 1),
        )
        self.classifier = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit per class, from the average over the last map."""
        maps = self.blocks(functional.relu(self.bn(self.conv(images))))
        return self.classifier(maps.mean(dim=(2, 3)))
