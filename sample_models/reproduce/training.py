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
    each_epoch: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Return the network that `build` makes, trained from `seed`, in `eval()`.

    As `train.train` does it. `each_epoch(epoch, network)` is called when an epoch (from 1) begins.
    Networks that draw equally many weights start from the same ones for the same seed.
    """
    torch.manual_seed(seed)
    network = build().train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.momentum = recipe.bn_momentum
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=5e-4
    )
    steps = recipe.epochs * (len(data.labels) // recipe.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule(step / steps)
    )
    for epoch in range(1, recipe.epochs + 1):
        if each_epoch is not None:
            each_epoch(epoch, network)
        for batch in batches(data.labels, recipe):
            optimizer.zero_grad()
            functional.cross_entropy(network(data.images[batch]), data.labels[batch]).backward()
            optimizer.step()
            scheduler.step()
    return network.eval()
