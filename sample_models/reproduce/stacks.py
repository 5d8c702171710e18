"""The plain stacks P12, trained at several batch sizes: shared by claims a, b, e and h."""

from __future__ import annotations

from functools import partial

from torch import nn
from train import Recipe

from reproduce.data import Images, digits
from reproduce.networks import P12, Norm, batch_norm
from reproduce.side_by_side import SideBySide
from reproduce.training import fit
from reproduce.zoo import Zoo

BATCHES = (2, 8, 32, 128)

RECIPES = {
    2: Recipe(batch_size=2, epochs=6, learning_rate=0.005),
    8: Recipe(batch_size=8, epochs=15, learning_rate=0.02),
    32: Recipe(batch_size=32, epochs=15, learning_rate=0.05),
    128: Recipe(batch_size=128, epochs=15, learning_rate=0.1),
}
"""Cosine schedule, BN momentum 0.1; fewer epochs at 2, where an epoch has 450 steps."""

LARGEST_SIDE_BY_SIDE = 8
"""Above this batch size nothing is gained by training the seeds side by side."""


def side_by_side(
    batch_size: int, norm: Norm = batch_norm, frozen_from: int | None = None
) -> SideBySide:
    """P12 with this norm at a small batch size, for all seeds at once."""
    end = "" if frozen_from is None else f"-frozen-from-{frozen_from}"
    name = f"P12-batch-{batch_size}-{norm.__name__}{end}"
    return SideBySide(name, partial(P12, norm), RECIPES[batch_size], _train_images, frozen_from)


def stack(zoo: Zoo, batch_size: int, norm: Norm = batch_norm) -> nn.Module:
    """P12 with this norm, trained on the 900 images at this batch size."""
    if batch_size <= LARGEST_SIDE_BY_SIDE:
        return zoo.prepared(side_by_side(batch_size, norm))
    return zoo.network(
        ("P12", batch_size, norm),
        lambda: fit(partial(P12, norm), RECIPES[batch_size], zoo.train, zoo.seed),
    )


def _train_images(seed: int) -> Images:
    return digits("train")
