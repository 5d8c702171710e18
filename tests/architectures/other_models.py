"""Tiny models of kinds that torchvision does not hold, and the samples that go into them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class VideoNet(nn.Module):
    """A 3-D network over clips (N, C, T, H, W), one convolution over space and one over time."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.space = nn.Conv3d(3, 6, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.space_bn = nn.BatchNorm3d(6)
        self.time = nn.Conv3d(6, 8, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0), bias=False)
        self.time_bn = nn.BatchNorm3d(8)
        self.head = nn.Linear(8, classes)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.space_bn(self.space(clips)).relu()
        x = self.time_bn(self.time(x)).relu()
        return self.head(x.mean((2, 3, 4)))


def _twice(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(into, out, 3, padding=1, bias=False),
        nn.BatchNorm3d(out),
        nn.ReLU(),
        nn.Conv3d(out, out, 3, padding=1, bias=False),
        nn.BatchNorm3d(out),
        nn.ReLU(),
    )


class UNet3d(nn.Module):
    """Volumes (N, 1, D, H, W) to scores of each voxel; every level skips over those below it."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.down = nn.ModuleList([_twice(1, 4), _twice(4, 6), _twice(6, 8)])
        self.enlarge = nn.ModuleList(
            [nn.ConvTranspose3d(8, 6, 2, stride=2), nn.ConvTranspose3d(6, 4, 2, stride=2)]
        )
        self.up = nn.ModuleList([_twice(12, 6), _twice(8, 4)])
        self.head = nn.Conv3d(4, classes, 1)

    def forward(self, volumes: Tensor) -> Tensor:
        first = self.down[0](volumes)
        second = self.down[1](functional.max_pool3d(first, 2))
        x = self.down[2](functional.max_pool3d(second, 2))
        x = self.up[0](torch.cat([second, self.enlarge[0](x)], 1))
        x = self.up[1](torch.cat([first, self.enlarge[1](x)], 1))
        return self.head(x)


class AudioNet(nn.Module):
    """A 1-D network over waves (N, 1, L) that are strided down to one vector, and normalised."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        widths = (1, 6, 8, 10)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(into, out, 9, stride=4, padding=4) for into, out in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, waves: Tensor) -> Tensor:
        x = waves
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x)).relu()
        return self.head(x.amax(2))


class GatedBlock(nn.Module):
    """Dilated and causal: a position sees itself and what came `dilation` positions before."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.past = nn.ConstantPad1d((dilation, 0), 0.0)
        self.filter_and_gate = nn.Conv1d(width, 2 * width, 2, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(2 * width)
        self.out = nn.Conv1d(width, 2 * width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        filtered, gate = self.norm(self.filter_and_gate(self.past(x))).chunk(2, 1)
        residual, skip = self.out(filtered.tanh() * gate.sigmoid()).chunk(2, 1)
        return x + residual, skip


class WaveNet(nn.Module):
    """Quantised waves, numbers (N, L), and what is said (N, features, L / 8), to scores of levels.

    The scores (N, levels, L) are of what comes after each position.
    """

    def __init__(self, levels: int = 16, width: int = 6, features: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(levels, width)
        self.said = nn.ConvTranspose1d(features, width, 8, stride=8)
        self.blocks = nn.ModuleList(GatedBlock(width, 2**i) for i in range(5))
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Conv1d(width, levels, 1)

    def forward(self, levels: Tensor, features: Tensor) -> Tensor:
        x = self.embedding(levels).transpose(1, 2) + self.said(features)
        skips = []
        for block in self.blocks:
            x, skip = block(x)
            skips.append(skip)
        return self.head(self.norm(sum(skips)).relu())


class Generator(nn.Module):
    """Latent vectors (N, latent) to images (N, 3, 16, 16), as in a DCGAN."""

    def __init__(self, latent: int = 12) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(latent, 16, 4, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.net(latents[:, :, None, None])


class _Shared(nn.Module):
    """The same two layers for every point: (N, C, P) to (N, out, P)."""

    def __init__(self, into: int, middle: int, out: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv1d(into, middle, 1), nn.Conv1d(middle, out, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(middle), nn.BatchNorm1d(out)])

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x)).relu()
        return x


class TNet(nn.Module):
    """A 3×3 map of each cloud; its BatchNorm1d sees (N, C, P) first, and vectors (N, C) then."""

    def __init__(self) -> None:
        super().__init__()
        self.points = _Shared(3, 6, 10)
        self.linear, self.norm = nn.Linear(10, 8), nn.BatchNorm1d(8)
        self.map = nn.Linear(8, 9)

    def forward(self, points: Tensor) -> Tensor:
        x = self.points(points).amax(2)
        entries = self.map(self.norm(self.linear(x)).relu())
        return entries.view(-1, 3, 3) + torch.eye(3)


class PointNet(nn.Module):
    """Clouds of points (N, P, 3) to scores of classes, and the map of each cloud (N, 3, 3)."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.turn, self.points = TNet(), _Shared(3, 8, 12)
        self.linear, self.norm = nn.Linear(12, 8), nn.BatchNorm1d(8)
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, classes))

    def forward(self, clouds: Tensor) -> tuple[Tensor, Tensor]:
        points = clouds.transpose(1, 2)
        map_ = self.turn(points)
        vectors = self.points(map_ @ points).amax(2)
        return self.head(self.norm(self.linear(vectors))), map_
