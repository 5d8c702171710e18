"""Makes everything in this folder: the digits and four checkpoints of one network.

    python sample_models/train.py

`healthy.pt` is sound. The other three are trained on the same images and carry statistics that
are wrong in a way met in practice; `RECIPES` says how each came about. The checkpoints are plain
state dicts, `torch.save(model.state_dict(), file)`.

Runs on one CPU core, in less than a minute, and gives the same files every time on the same
machine. Another processor or version of PyTorch rounds differently, which acts like another
seed: quote figures of the checkpoints stored here, not of a new run. scikit-learn is needed only
where `digits.npz` is absent.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from digits import IMAGE_SHAPE, DigitsNet, model
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

FOLDER = Path(__file__).resolve().parent
SPLIT_SIZES = {"train": 900, "verify": 400, "test": 497}
SEED = 2


def cosine(progress: float) -> float:
    """Return the factor on the learning rate, from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """Return 1: the learning rate stays, as weight averaging wants it."""
    return 1.0


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is trained, with SGD (momentum 0.9, weight decay 5e-4).

    `bn_momentum` is PyTorch's: the weight of the newest batch in the running statistics.
    `average_from` is the first epoch (from 1) whose weights enter the average, None for none.
    """

    batch_size: int = 32
    epochs: int = 15
    learning_rate: float = 0.1
    schedule: Callable[[float], float] = cosine
    bn_momentum: float = 0.1
    average_from: int | None = None


RECIPES = {
    "healthy": Recipe(),
    # Two images a batch: noisy statistics in training, and a running average over hardly more
    # than the last two batches.
    "small_batch": Recipe(batch_size=2, epochs=6, learning_rate=0.003, bn_momentum=0.5),
    # 420 steps move the running statistics a fifth of the way from their initial 0 and 1. The
    # weights are those of `healthy`, bit for bit: training never reads the running statistics.
    "lagging_ema": Recipe(bn_momentum=0.0005),
    # Stochastic weight averaging without the final `update_bn` that PyTorch's manual asks for:
    # averaged weights, and the running statistics of the last epoch's weights.
    "averaged": Recipe(epochs=8, learning_rate=0.3, schedule=constant, average_from=2),
}


def make_digits(file: Path) -> None:
    """Write scikit-learn's 1,797 digits as uint8 (N, 8, 8), split with equal shares of classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    arrays: dict[str, np.ndarray] = {}
    for name in ("train", "verify"):
        taken, images, taken_labels, labels = train_test_split(
            images, labels, train_size=SPLIT_SIZES[name], stratify=labels, random_state=0
        )
        arrays |= {f"x_{name}": taken, f"y_{name}": taken_labels}
    arrays |= {"x_test": images, "y_test": labels}
    np.savez_compressed(file, **arrays)


def load_split(file: Path, name: str) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, 8, 8) in [0, 1] and labels (N,) of `train`, `verify` or `test`."""
    with np.load(file) as arrays:
        images = torch.from_numpy(arrays[f"x_{name}"]).reshape(-1, *IMAGE_SHAPE)
        return images.float() / 255, torch.from_numpy(arrays[f"y_{name}"])


def shuffled_batches(samples: int, recipe: Recipe) -> Iterator[Tensor]:
    """Yield the indices of one epoch's batches; a partial one is left out."""
    order = torch.randperm(samples)
    full_batches = samples // recipe.batch_size
    yield from order[: full_batches * recipe.batch_size].split(recipe.batch_size)


def train(recipe: Recipe, images: Tensor, labels: Tensor, seed: int = SEED) -> DigitsNet:
    """Return a network trained by the recipe, in `eval()`; the same for the same seed."""
    torch.manual_seed(seed)
    network = model().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=5e-4
    )
    steps = recipe.epochs * (len(images) // recipe.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule(step / steps)
    )
    averaged = AveragedModel(network)  # its buffers follow the network's, they are not averaged
    for epoch in range(1, recipe.epochs + 1):
        for batch in shuffled_batches(len(images), recipe):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
            scheduler.step()
        if recipe.average_from is not None and epoch >= recipe.average_from:
            averaged.update_parameters(network)
    return (network if recipe.average_from is None else averaged.module).eval()


@torch.no_grad()
def accuracy(network: DigitsNet, images: Tensor, labels: Tensor) -> float:
    """Return the share of right answers with the running statistics, as deployed."""
    return (network.eval()(images).argmax(dim=1) == labels).double().mean().item()


def make_all(folder: Path) -> None:
    """Write `digits.npz`, where it is absent, and the checkpoints."""
    data = folder / "digits.npz"
    if not data.exists():
        make_digits(data)
    for name, recipe in RECIPES.items():
        network = train(recipe, *load_split(data, "train"))
        torch.save(network.state_dict(), folder / f"{name}.pt")
        print(f"{name}: test accuracy {accuracy(network, *load_split(data, 'test')):.1%}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    make_all(FOLDER)
