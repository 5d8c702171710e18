"""Training of any network by a recipe of `train.py`, with any order of the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from train import Recipe, shuffled_batches

from reproduce.data import Images

Batches = Callable[[Tensor, Recipe], Iterator[Tensor]]
"""(labels, recipe) -> the indices of one epoch's batches."""


def shuffled(labels: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Batches at random, as usual."""
    yield from shuffled_batches(len(labels), recipe)


def fit(
    build: Callable[[], nn.Module],
    recipe: Recipe,
    data: Images,
    seed: int,
    batches: Batches = shuffled,
) -> nn.Module:
    """Return the network that `build` makes, trained from `seed`, in `eval()`.

    As `train.train` does it. Networks that draw equally many weights start from the same ones for
    the same seed.
    """
    torch.manual_seed(seed)
    network = build().train()
    set_momentum(network, recipe)
    optimizer, scheduler = optimiser(network, recipe, len(data.labels))
    for _ in range(recipe.epochs):
        for batch in batches(data.labels, recipe):
            optimizer.zero_grad()
            functional.cross_entropy(network(data.images[batch]), data.labels[batch]).backward()
            optimizer.step()
            scheduler.step()
    return network.eval()


def set_momentum(network: nn.Module, recipe: Recipe) -> None:
    """Give every layer with running statistics the recipe's momentum."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.momentum = recipe.bn_momentum


def optimiser(
    network: nn.Module, recipe: Recipe, samples: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with momentum 0.9 and weight decay 5e-4, and its schedule, one step a batch."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=5e-4
    )
    steps = recipe.epochs * (samples // recipe.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule(step / steps)
    )
    return optimizer, scheduler
