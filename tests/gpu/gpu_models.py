"""A small network with wrong statistics, images, and what can be seen of a model from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block with a BatchNorm layer on its shortcut."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first, self.bn1 = nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b)
        self.second, self.bn2 = nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b)
        self.short, self.bn3 = nn.Conv2d(a, b, 1, stride=2), nn.BatchNorm2d(b)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.second(torch.relu(self.bn1(self.first(x)))))
        return torch.relu(y + self.bn3(self.short(x)))


def network() -> nn.Module:
    """(N, 3, 16, 16) to (N, 4): eight BatchNorm layers whose statistics are off; on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(Block(8, 12), Block(12, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            *(nn.BatchNorm1d(16), nn.Linear(16, 4)),
        )
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.3)
                    module.running_var.uniform_(0.3, 1.5)
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(std=0.3)
    return model.eval()


def labelled(samples: int = 256, size: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Batches of skewed images, each with a brightness of its own, and of labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, 16, 16, generator=generator)
    x = x + 0.4 * x.square() + torch.randn(samples, 3, 1, 1, generator=generator)
    return list(zip(x.split(size), (torch.arange(samples) % 4).split(size), strict=True))


def state_of(model: nn.Module) -> dict[str, Any]:
    """Of every parameter and buffer: identity, memory, strides, bits, gradient; every mode."""
    seen: dict[str, Any] = {name: module.training for name, module in model.named_modules()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        bits = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        where = (id(tensor), tensor.data_ptr(), tensor.stride(), tensor.device, tensor.dtype)
        seen[f"{name}:"] = (*where, bits, None if tensor.grad is None else id(tensor.grad))
    return seen


def generators() -> tuple[bytes, ...]:
    """The states of torch's generators, the devices' too."""
    states = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    return tuple(state.numpy().tobytes() for state in states)
