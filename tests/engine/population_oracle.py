"""The corrected condition from its definition: the whole population as one batch, in float64.

And small nets of many forms to hold it against. Nothing here comes from bnaudit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Pair = tuple[Tensor, Tensor]
Change = Callable[[str, Pair, Pair], Pair | None]
"""(name, what a layer sees, what it has) -> what it normalises by; None: what it has."""


def always(name: str, seen: Pair, own: Pair) -> Pair | None:
    return seen


@torch.no_grad()
def as_one_batch(model: nn.Module, data: Tensor, change: Change = always) -> dict[str, Pair]:
    """Mean and biased variance (C,) of every BN layer that changes, by name, in float64.

    Every layer normalises all of `data` at once by what `change` makes of all that it sees. For
    layers that are called once in a forward.
    """
    model = copy.deepcopy(model).double().eval()
    found: dict[str, Pair] = {}

    def forward(name: str, layer: Any, x: Tensor) -> Tensor:
        own = layer.running_mean, layer.running_var
        used = change(name, moments(x), own)
        if used is not None:
            found[name] = used
        mean, var = used or own
        return functional.batch_norm(
            x, mean, var, layer.weight, layer.bias, training=False, eps=layer.eps
        )

    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.forward = partial(forward, name, module)
    model(data.double())
    return found


def by_repeated_updates(model: nn.Module, data: Tensor, passes: int) -> dict[str, Pair]:
    """`by_repeated_updates_of_batches` with all data as one batch."""
    return by_repeated_updates_of_batches(model, [data], passes)


@torch.no_grad()
def by_repeated_updates_of_batches(
    model: nn.Module, batches: Sequence[Tensor], passes: int
) -> dict[str, Pair]:
    """Every layer takes what it sees at once, again and again: exact after as many passes as there
    are layers, in whatever order they are called. Pooled over a layer's calls.
    """
    model = copy.deepcopy(model).double().eval()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}
    seen: dict[str, list[Tensor]] = {}

    def forward(name: str, layer: Any, x: Tensor) -> Tensor:
        seen.setdefault(name, []).append(x.transpose(0, 1).flatten(1))
        return type(layer).forward(layer, x)

    for name, layer in layers.items():
        layer.forward = partial(forward, name, layer)
    for _ in range(passes):
        seen.clear()
        for batch in batches:
            model(batch.double())
        for name, inputs in seen.items():
            values = torch.cat(inputs, 1)
            layers[name].running_mean = values.mean(1)
            layers[name].running_var = values.var(1, correction=0)
    return {name: (layers[name].running_mean, layers[name].running_var) for name in seen}


def moments(x: Tensor) -> Pair:
    """Mean and biased variance of each channel of (N, C, *)."""
    values = x.transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1, correction=0)


def largest_difference(a: dict[str, Pair], b: dict[str, Pair], eps: float = 1e-5) -> float:
    """Over all channels of all layers, of mean and of deviation, in standard deviations of `b`."""
    assert a.keys() == b.keys()
    worst = 0.0
    for name, (mean, var) in b.items():
        s = (var.double() + eps).sqrt()
        of_mean = (a[name][0].double() - mean.double()).abs() / s
        of_deviation = (a[name][1].double().sqrt() - var.double().sqrt()).abs() / s
        worst = max(worst, float(of_mean.max()), float(of_deviation.max()))
    return worst


def spoilt(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every BN layer gets wrong statistics and an affine map of its own; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                c = module.num_features
                module.running_mean.copy_(torch.randn(c, generator=generator) * 0.4)
                module.running_var.copy_(torch.rand(c, generator=generator) * 2 + 0.2)
                if module.affine:
                    module.weight.copy_(torch.randn(c, generator=generator))
                    module.bias.copy_(torch.randn(c, generator=generator) * 0.5)
    return model.eval()


def conv(a: int, b: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False, **options)


class Plain(nn.Sequential):
    """Convolution, BN, ReLU, three times."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for a, b in ((3, 6), (6, 8), (8, 5)):
            layers += [conv(a, b), nn.BatchNorm2d(b), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))


class Residual(nn.Module):
    """Two blocks, one with a BN on its shortcut, registered after those it runs beside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = conv(3, 6), nn.BatchNorm2d(6)
        self.a, self.bn1, self.b = conv(6, 6), nn.BatchNorm2d(6), conv(6, 6)
        self.bn2 = nn.BatchNorm2d(6)
        self.c, self.bn3 = conv(6, 8, stride=2), nn.BatchNorm2d(8)
        self.short, self.bn4 = conv(6, 8, 1, stride=2), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn0(self.stem(x)))
        x = torch.relu(self.bn2(self.b(torch.relu(self.bn1(self.a(x))))) + x)
        x = torch.relu(self.bn3(self.c(x)) + self.bn4(self.short(x)))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """BN before the convolution, on a concatenation of everything so far."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(3 + 4 * i) for i in range(4))
        self.convs = nn.ModuleList(conv(3 + 4 * i, 4) for i in range(4))
        self.head = nn.Linear(19, 4)

    def forward(self, x: Tensor) -> Tensor:
        for norm, convolution in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, convolution(torch.relu(norm(x)))], 1)
        return self.head(x.mean((2, 3)))


class Grouped(nn.Sequential):
    """Depthwise and pointwise convolutions, and a channel shuffle between them."""

    def __init__(self) -> None:
        super().__init__(
            *(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU6()),
            *(conv(8, 8, groups=8), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU6()),
            *(nn.ChannelShuffle(2), conv(8, 6, groups=2), nn.BatchNorm2d(6, affine=False)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
        )


class Vectors(nn.Sequential):
    """BatchNorm1d on (N, C) and on (N, C, L)."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Flatten(2), nn.BatchNorm1d(3), nn.Conv1d(3, 6, 5), nn.BatchNorm1d(6), nn.GELU()),
            *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 4)),
            nn.BatchNorm1d(4, momentum=None),
        )


class Clips(nn.Sequential):
    """BatchNorm3d on (N, C, T, H, W)."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Unflatten(2, (2, 4)), nn.Conv3d(3, 5, (1, 3, 3)), nn.BatchNorm3d(5), nn.ReLU()),
            *(nn.Conv3d(5, 4, (2, 1, 1)), nn.BatchNorm3d(4), nn.ReLU()),
            *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 4)),
        )


class Branches(nn.Module):
    """Two branches, called in the reverse of the order in which they are registered."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.BatchNorm2d(8)
        self.second, self.second_bn = conv(3, 4), nn.BatchNorm2d(4)
        self.first, self.first_bn = conv(3, 4, 1), nn.BatchNorm2d(4)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.first_bn(self.first(x)))
        second = torch.relu(self.second_bn(self.second(x)) + first.mean((1, 2, 3), keepdim=True))
        return self.head(self.last(torch.cat([second, first], 1)).mean((2, 3)))


class Gate(nn.Module):
    """Control flow on sizes and on values: loops, an early list, a branch that all batches take."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([conv(3, 6), conv(6, 6), conv(6, 6)])
        self.norms = nn.ModuleDict({str(i): nn.BatchNorm2d(6) for i in reversed(range(3))})
        self.unused = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        depth = 0
        while depth < 3 and x.shape[-1] > 1:
            x = torch.relu(self.norms[str(depth)](self.blocks[depth](x)))
            if bool(x.abs().max() > 1e12):
                x = self.unused(x)
            x, depth = functional.max_pool2d(x, 2), depth + 1
        return self.head(x.mean((2, 3)))


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "dense": Dense,
    "grouped": Grouped,
    "vectors": Vectors,
    "clips": Clips,
    "branches": Branches,
    "control flow": Gate,
}


def net(name: str) -> nn.Module:
    """One of `NETS` with seeded weights and wrong statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spoilt(NETS[name]())


def images(n: int = 64, seed: int = 1) -> Tensor:
    """Skewed images (n, 3, 8, 8), each with a brightness of its own."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 8, 8, generator=generator)
    return x + 0.4 * x.square() + torch.randn(n, 3, 1, 1, generator=generator)
