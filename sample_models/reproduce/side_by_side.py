"""Networks of several seeds trained side by side, as one network with grouped convolutions.

At batch 2 nearly all the time goes into calling PyTorch, not into arithmetic: ten seeds together
cost hardly twice as much as one. Each network computes what it would compute alone, up to rounding:
convolutions, norms and the linear layer work on its own channels, and SGD on its own weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from train import Recipe

from bnaudit import nn as bnn
from reproduce.data import Images
from reproduce.training import optimiser, set_momentum, shuffled


class Linears(nn.Module):
    """The linear layers of S networks: (N, S·C) -> (N, S, K)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
        self.networks, self.classes = len(layers), layers[0].out_features

    def forward(self, x: Tensor) -> Tensor:
        """Each network's features by its own weights."""
        weight = self.weight.view(self.networks, self.classes, -1)
        features = x.view(len(x), self.networks, -1)
        outputs = torch.einsum("nsc,skc->nsk", features, weight)
        return outputs + self.bias.view(self.networks, -1)


def together(networks: Sequence[nn.Module]) -> nn.Module:
    """One network that takes (N, S, H, W), an image for each of S networks, and gives (N, S, K).

    Raises `TypeError` for a layer with parameters of another kind than the claims use.
    """
    joined = copy.deepcopy(networks[0])
    for name, module in list(joined.named_modules()):
        if name and any(True for _ in module.parameters(recurse=False)):
            parent, _, attribute = name.rpartition(".")
            alike = [network.get_submodule(name) for network in networks]
            setattr(joined.get_submodule(parent), attribute, _joined(module, alike))
    return joined


def apart(joined: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Write the weights and statistics of `joined` back into the networks."""
    tensors = joined.state_dict()
    for place, network in enumerate(networks):
        own = {
            name: tensors[name] if tensor.dim() == 0 else tensors[name].chunk(len(networks))[place]
            for name, tensor in network.state_dict().items()
        }
        network.load_state_dict(own)


def _joined(module: nn.Module, alike: Sequence[nn.Module]) -> nn.Module:
    count = len(alike)
    if isinstance(module, nn.Linear):
        return Linears([layer for layer in alike if isinstance(layer, nn.Linear)])
    made: nn.Module
    if isinstance(module, nn.Conv2d):
        made = nn.Conv2d(
            module.in_channels * count,
            module.out_channels * count,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            groups=module.groups * count,
            bias=module.bias is not None,
        )
    elif isinstance(module, bnn.BatchGroupNorm2d):
        groups, channels = module.groups * count, module.num_features * count
        made = bnn.BatchGroupNorm2d(channels, groups, module.examples, module.eps, module.momentum)
    elif type(module) is nn.BatchNorm2d:
        made = nn.BatchNorm2d(module.num_features * count, module.eps, module.momentum)
    elif isinstance(module, nn.GroupNorm):
        made = nn.GroupNorm(module.num_groups * count, module.num_channels * count, module.eps)
    else:
        raise TypeError(f"{type(module).__name__} cannot be joined")
    own = [layer.state_dict() for layer in alike]
    made.load_state_dict(
        {
            name: tensor if tensor.dim() == 0 else torch.cat([each[name] for each in own])
            for name, tensor in own[0].items()
        }
    )
    return made


@dataclass(frozen=True)
class SideBySide:
    """A network that is trained for all seeds at once. `name` names its files.

    `data(seed)`: what the network of that seed is trained on. `frozen_from`: the epoch (from 1)
    from which on its statistics are frozen.
    """

    name: str
    build: Callable[[], nn.Module]
    recipe: Recipe
    data: Callable[[int], Images]
    frozen_from: int | None = None

    def untrained(self) -> nn.Module:
        """The network as its trained weights are loaded into it: frozen, where it is so."""
        network = self.build()
        if self.frozen_from is not None:
            bnn.freeze(network)
        return network.eval()

    def train(self, seeds: Sequence[int]) -> list[nn.Module]:
        """The networks of these seeds, each as `training.fit` trains it, in `eval()`."""
        recipe, data = self.recipe, [self.data(seed) for seed in seeds]
        networks, generators = [], []
        for seed in seeds:
            torch.manual_seed(seed)
            network = self.build().train()
            set_momentum(network, recipe)
            networks.append(network)
            generators.append(torch.get_rng_state())
        joined = together(networks)
        optimizer, scheduler = optimiser(joined, recipe, len(data[0].labels))
        for epoch in range(1, recipe.epochs + 1):
            if epoch == self.frozen_from:
                bnn.freeze(joined)
            orders = []
            for place, one in enumerate(data):
                torch.set_rng_state(generators[place])
                orders.append(list(shuffled(one.labels, recipe)))
                generators[place] = torch.get_rng_state()
            for batches in zip(*orders, strict=True):
                drawn = list(zip(data, batches, strict=True))
                images = torch.cat([one.images[batch] for one, batch in drawn], dim=1)
                labels = torch.stack([one.labels[batch] for one, batch in drawn], dim=1)
                optimizer.zero_grad()
                logits = joined(images).flatten(0, 1)
                loss = functional.cross_entropy(logits, labels.flatten())
                (len(seeds) * loss).backward()  # the sum of the networks' mean losses
                optimizer.step()
                scheduler.step()
        trained = [self.untrained() for _ in seeds]
        apart(joined, trained)
        return trained
