"""Models of a few layers whose statistics are wrong by known kinds of amounts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def with_wrong_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every BN layer gets random statistics and a random affine map."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            c = module.num_features
            module.running_mean.copy_(torch.randn(c, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(c, generator=generator) * 2 + 0.2)
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(torch.randn(c, generator=generator))
                    module.bias.copy_(torch.randn(c, generator=generator))
    return model


def classifier(seed: int = 0, classes: int = 4) -> nn.Module:
    """Two convolutions and three BN layers, one of them on vectors: (N, 3, 8, 8) to (N, 4)."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(8, eps=1e-3),
        nn.Dropout(0.5),
        nn.Linear(8, classes),
    )
    return with_wrong_statistics(model, seed)


BN_NAMES = ("1", "4", "8")


def images(n: int = 200, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Skewed images (n, 3, 8, 8) and labels (n,) in 0..3."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 8, 8, generator=generator)
    x = x + 0.5 * x.square() + torch.randn(n, 3, 1, 1, generator=generator)
    return x, torch.randint(0, 4, (n,), generator=generator)
