"""Small colour images of four kinds, and a network that has learnt to tell them apart."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

COLOURS = ((0.95, 0.55, 0.1), (0.1, 0.8, 0.45), (0.75, 0.15, 0.45), (0.55, 0.5, 0.35))
"""None of them is another one with its channels in reverse order."""

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def pictures(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pixels in whole levels of 8 bits from 0 to 1, (N, 3, 16, 16), and kinds 0 to 3.

    Smooth light and shade over a coloured ground, brighter at the top.
    """
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.arange(count) % len(COLOURS)
    coarse = torch.rand(count, 1, 4, 4, generator=draw) + 0.3 * torch.rand(
        count, 3, 4, 4, generator=draw
    )
    shade = functional.interpolate(coarse, size=16, mode="bilinear")
    top = torch.linspace(1.0, 0.6, 16).view(1, 1, 16, 1)
    pixels = torch.tensor(COLOURS)[kinds][:, :, None, None] * shade * top * 1.4
    return (pixels.clamp(0, 1) * 255).round() / 255, kinds


def normalised(pixels: Tensor) -> Tensor:
    """By ImageNet's mean and deviation."""
    return (pixels - MEAN) / STD


class Net(nn.Module):
    """Five convolutions, each with a BatchNorm, and a linear layer."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        widths = (channels, 8, 8, 12, 12, 12)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1 + (i == 2), 1, bias=False)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.last = nn.Linear(widths[-1], len(COLOURS))

    def forward(self, x: Tensor) -> Tensor:
        for conv, bn in zip(self.convs, self.bns, strict=True):
            x = functional.relu(bn(conv(x)))
        return self.last(x.mean((2, 3)))


@cache
def _weights() -> dict[str, Tensor]:
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        net = Net()
        pixels, kinds = pictures(512, seed=1)
        x = normalised(pixels)
        optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
        for step in range(80):
            chosen = torch.arange(64 * (step % 8), 64 * (step % 8) + 64)
            optimiser.zero_grad()
            functional.cross_entropy(net(x[chosen]), kinds[chosen]).backward()
            optimiser.step()
        return {name: value.clone() for name, value in net.state_dict().items()}


def trained() -> Net:
    """The network in eval mode; it wants pixels normalised by ImageNet's mean and deviation."""
    net = Net()
    net.load_state_dict(_weights())
    return net.eval()
