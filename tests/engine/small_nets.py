"""Helpers: a network around one layer, and images to run it on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


def around(layer: nn.Module, channels: int = 6) -> nn.Module:
    """A convolution, the layer, and a head: (N, 3, 8, 8) to (N, 4)."""
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return nn.Sequential(nn.Conv2d(3, channels, 3), layer, nn.ReLU(), *head)


def filled(layer: Any, seed: int = 0) -> Any:
    """The layer with random statistics and, where it has them, a random weight and bias."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        shape = layer.running_mean.shape
        layer.running_mean.copy_(torch.randn(shape, generator=generator) * 0.2)
        layer.running_var.copy_(torch.rand(shape, generator=generator) + 0.3)
        for name in ("weight", "bias"):
            tensor = getattr(layer, name, None)
            if tensor is not None:
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return layer


def images(n: int = 64, seed: int = 0) -> Tensor:
    """Skewed images (n, 3, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 8, 8, generator=generator)
    return x + 0.4 * x.square()


def dataset(n: int = 64) -> TensorDataset:
    """The images with labels in 0..3."""
    return TensorDataset(images(n), torch.arange(n) % 4)


def shift_of(x: Tensor, layer: Any, eps: float, axis: int = 1) -> float:
    """The plain estimation shift of a layer on the inputs `x`, from the definition, in float64."""
    rows = x.detach().double().movedim(axis, -1).flatten(0, -2)
    m, v = rows.mean(0), rows.var(0, correction=0)
    s = (layer.running_var.double() + eps).sqrt()
    d2 = ((m - layer.running_mean.double()) / s) ** 2
    d2 = d2 + (v.sqrt() / s - v.sqrt() / (v + eps).sqrt()) ** 2
    return float(d2.mean().sqrt())
