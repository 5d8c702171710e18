"""The ResNets of He et al. 2016 for CIFAR-10, and the shared images, as ../shared/data has them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CHECKPOINTS = {3: "resnet20-12fca82f.th", 9: "resnet56-4bfd9763.th"}


class Block(nn.Module):
    """Two 3x3 convolutions; the shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.pad = stride, (width - channels) // 2

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the shape of the output."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """6n + 2 layers: a convolution, three stages of n blocks, pooling, a linear layer."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, n)
        self.layer2 = self._stage(16, 32, 2, n)
        self.layer3 = self._stage(32, 64, 2, n)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(channels: int, width: int, stride: int, n: int) -> nn.Sequential:
        rest = [Block(width, width, 1) for _ in range(n - 1)]
        return nn.Sequential(Block(channels, width, stride), *rest)

    def blocks(self) -> list[Any]:
        """All blocks in order."""
        return [*self.layer1, *self.layer2, *self.layer3]

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def trained(n: int) -> CifarResNet:
    """The trained network with n blocks a stage, in eval mode."""
    state = torch.load(DATA / CHECKPOINTS[n], map_location="cpu", weights_only=True)["state_dict"]
    model = CifarResNet(n)
    report = model.load_state_dict(
        {key.removeprefix("module."): value for key, value in state.items()}, strict=False
    )
    assert not report.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in report.missing_keys)
    return model.eval()


def read_test_images() -> tuple[Tensor, Tensor]:
    """All 10,000 test images as the networks take them, (N, 3, 32, 32), and their classes."""
    with zipfile.ZipFile(DATA / "cifar10-jpeg.zip") as archive:
        names = sorted(
            name
            for name in archive.namelist()
            if "test/" in name and name.lower().endswith((".jpg", ".jpeg"))
        )
        pixels = np.stack(
            [np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in names]
        )
    classes = [Path(name).parent.name for name in names]
    order = {name: i for i, name in enumerate(sorted(set(classes)))}
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    return x.contiguous(), torch.tensor([order[name] for name in classes])
