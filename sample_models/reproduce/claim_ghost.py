"""Claim h2: ghost batches regularise.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
h2a With ghost batches of 6 the test accuracy is higher than with Batch Norm over the batch of 60.
h2b With ghost batches of 3 likewise.
Secondary: the gap between training and test accuracy is smaller with ghost batches, for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure
from torch import nn
from train import Recipe

from bnaudit import nn as bnn
from reproduce.claim import PERCENT, POINTS, Claim, Difference, Row, Table
from reproduce.data import Images, Noise
from reproduce.drawing import COLOURS, categories, drawn, panels
from reproduce.figures import deployed, measured
from reproduce.networks import R9
from reproduce.training import fit
from reproduce.zoo import Zoo

NOISE = 0.25
FEW = 300
RECIPE = Recipe(batch_size=60, epochs=30)
SIZES = (60, 6, 3)


@dataclass(frozen=True)
class Accuracies:
    """Of one network, on the training and on the test images."""

    train: float
    test: float


@dataclass(frozen=True)
class Figures:
    """One seed, in the order of `SIZES`."""

    networks: tuple[Accuracies, ...]


def run(zoo: Zoo) -> Figures:
    """Train the three networks from the same weights, in the same order of samples."""
    few = zoo.train.first(FEW).through(Noise(NOISE, seed=zoo.seed + 1))
    test = zoo.test.through(Noise(NOISE, seed=0))
    return Figures(tuple(_accuracies(size, few, test, zoo.seed) for size in SIZES))


def _accuracies(size: int, few: Images, test: Images, seed: int) -> Accuracies:
    network = fit(partial(_network, size), RECIPE, few, seed)
    return Accuracies(
        deployed(measured(network, few)).accuracy, deployed(measured(network, test)).accuracy
    )


def _network(size: int) -> nn.Module:
    if size == RECIPE.batch_size:
        return R9()
    return bnn.convert(R9(), "ghost", ghost_size=size).model


def gain(figures: Figures, which: int) -> float:
    """Test accuracy with ghost batches less without."""
    return figures.networks[which].test - figures.networks[0].test


def closed(figures: Figures, which: int) -> float:
    """By how much the gap between training and test accuracy is smaller with ghost batches."""
    gaps = [one.train - one.test for one in figures.networks]
    return gaps[0] - gaps[which]


def _row(which: int) -> Row:
    return Row(
        f"ghost batches of {SIZES[which]}" if which else "Batch Norm",
        (lambda one: one.networks[which].train, lambda one: one.networks[which].test),
    )


def plot(figures: Sequence[Figures]) -> Figure:
    """Test accuracy by the size of the ghost batches."""
    figure, (axes,) = panels(1, "Claim h2: ghost batches, 300 noisy images, batch 60")
    values = [[100 * one.networks[which].test for one in figures] for which in range(len(SIZES))]
    labels = ("Batch Norm", *(f"ghost batches\nof {size}" for size in SIZES[1:]))
    categories(axes, labels, values, (COLOURS[0], COLOURS[3], COLOURS[2]))
    axes.set_ylabel("test accuracy (%)")
    return drawn(figure)


CLAIM = Claim(
    key="h2",
    title="Ghost batches regularise",
    says="Summers 2020, section 3.2: Ghost Batch Norm, normalising by parts of the batch in "
    "training, regularises and makes models more accurate, at medium batch sizes too.",
    recipe="R9 on the first 300 training images with noise 0.25, batch 60, learning rate 0.1, "
    "cosine, 30 epochs; Batch Norm against `GhostBatchNorm` of 6 and of 3. Test images with the "
    "same kind of noise.",
    seeds=16,
    figures=Figures,
    run=run,
    primary=tuple(
        Difference(
            f"h2{'ab'[which - 1]}",
            f"accuracy: ghost batches of {SIZES[which]} − Batch Norm",
            partial(gain, which=which),
            POINTS,
        )
        for which in (1, 2)
    ),
    secondary=tuple(
        Difference(
            f"h2{'cd'[which - 1]}",
            f"ghost batches of {SIZES[which]}: the gap between training and test shrinks",
            partial(closed, which=which),
            POINTS,
        )
        for which in (1, 2)
    ),
    tables=(
        Table(
            "Accuracy",
            "",
            (("training images", PERCENT), ("test images", PERCENT)),
            tuple(_row(which) for which in range(len(SIZES))),
        ),
    ),
    plot=plot,
)
