"""The network of the sample models, trained by `train.py`: shared by claims d and f."""

from __future__ import annotations

from torch import nn
from train import Recipe, train

from reproduce.zoo import Zoo


def digits_net(zoo: Zoo, recipe: Recipe) -> nn.Module:
    """`digits.py:DigitsNet` trained by the recipe on the 900 images."""
    return zoo.network(
        ("DigitsNet", recipe), lambda: train(recipe, zoo.train.images, zoo.train.labels, zoo.seed)
    )
