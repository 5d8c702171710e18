"""Claim h1: inference example weighing helps small-batch models.

Two of them: R9 trained at batch 4 on 300 noisy images, and the stack P12 of claim a trained at
batch 2 on all. The weight is chosen on the `verify` images: for the accuracy the one of highest
accuracy (the smallest of several), for the loss the one of lowest loss.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
h1a R9 at batch 4: the test accuracy at that weight is higher than without weighing.
h1b P12 at batch 2: likewise.
Secondary: the test loss is lower, for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from torch import nn
from train import Recipe

import bnaudit
from reproduce.claim import NATS, PERCENT, PLAIN, POINTS, Claim, Difference, Row, Table
from reproduce.data import Images, Noise, digits
from reproduce.drawing import COLOURS, MARKERS, band, drawn, panels
from reproduce.figures import PASS
from reproduce.networks import R9
from reproduce.side_by_side import SideBySide
from reproduce.stacks import side_by_side, stack
from reproduce.zoo import Zoo

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
NOISE = 0.4
FEW = 300
RECIPE = Recipe(batch_size=4, learning_rate=0.01)


def _few(seed: int) -> Images:
    return digits("train").first(FEW).through(Noise(NOISE, seed=seed + 1))


NOISY = SideBySide("R9-batch-4-noise", R9, RECIPE, _few)
NAMES = {"noisy": "R9, batch 4, noise 0.4", "stack": "P12, batch 2"}


@dataclass(frozen=True)
class Network:
    """Test accuracy and loss over `WEIGHTS`, and the weights chosen for each on other images."""

    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    for_accuracy: float
    for_loss: float


@dataclass(frozen=True)
class Figures:
    """One seed."""

    noisy: Network
    stack: Network


def run(zoo: Zoo) -> Figures:
    """Sweep the weight on the `verify` and on the test images."""
    through = Noise(NOISE, seed=0)
    return Figures(
        _network(zoo.prepared(NOISY), zoo.verify.through(through), zoo.test.through(through)),
        _network(stack(zoo, 2), zoo.verify, zoo.test),
    )


def _network(network: nn.Module, choosing: Images, judging: Images) -> Network:
    accuracies, losses = _swept(network, choosing)
    best, lowest = int(np.argmax(accuracies)), int(np.argmin(losses))
    return Network(*_swept(network, judging), WEIGHTS[best], WEIGHTS[lowest])


def _swept(network: nn.Module, data: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    points = bnaudit.sweep_example_weight(
        network, data.data(), values=WEIGHTS, batch_size=PASS
    ).points
    accuracy = [point.scores.accuracy for point in points]
    loss = [point.scores.loss for point in points]
    return (
        tuple(figure.value for figure in accuracy if figure is not None),
        tuple(figure.value for figure in loss if figure is not None),
    )


def gained(figures: Figures, network: str, kind: str) -> float:
    """By how much `accuracy` rises, or `loss` falls, at the weight that was chosen for it."""
    one: Network = getattr(figures, network)
    values, chosen = getattr(one, kind), getattr(one, f"for_{kind}")
    gain = float(values[WEIGHTS.index(chosen)] - values[0])
    return gain if kind == "accuracy" else -gain


def _row(network: str) -> Row:
    def without(one: Figures, kind: str) -> float:
        return float(getattr(getattr(one, network), kind)[0])

    def weight(one: Figures, kind: str) -> float:
        return float(getattr(getattr(one, network), f"for_{kind}"))

    def weighed(one: Figures, kind: str) -> float:
        values = getattr(getattr(one, network), kind)
        return float(values[WEIGHTS.index(weight(one, kind))])

    figures = (without, weighed, weight)
    cells = [partial(figure, kind=kind) for kind in ("accuracy", "loss") for figure in figures]
    return Row(NAMES[network], tuple(cells))


def plot(figures: Sequence[Figures]) -> Figure:
    """Change of accuracy and of loss over the weight."""
    figure, (left, right) = panels(2, "Claim h1: inference example weighing, change against none")
    for place, (network, label) in enumerate(NAMES.items()):
        style = {"color": COLOURS[(0, 3)[place]], "marker": MARKERS[place]}
        for axes, kind, factor in ((left, "accuracy", 100), (right, "loss", 1)):
            values = np.array([getattr(getattr(one, network), kind) for one in figures])
            band(axes, WEIGHTS, factor * (values - values[:, :1]), label=label, **style)
    left.set_ylabel("test accuracy (points)")
    right.set_ylabel("test loss (nats)")
    for axes in (left, right):
        axes.axhline(0, color="black", lw=0.8)
        axes.set_xlabel("weight a of the example's own moments")
    return drawn(figure, left)


CLAIM = Claim(
    key="h1",
    title="Example weighing helps small-batch models",
    says="Summers 2020, section 3.1: at inference, mixing an example's own moments into the moving "
    "averages, with a weight chosen on validation data, makes models more accurate at no cost of "
    "training.",
    recipe="R9 on the first 300 training images with noise 0.4, batch 4, learning rate 0.01, "
    "cosine, 15 epochs; P12 at batch 2 as in claim a. `bnaudit.sweep_example_weight` on the "
    "`verify` images chooses the weight, of highest accuracy for the accuracy and of lowest loss "
    "for the loss; the test images judge it.",
    seeds=10,
    figures=Figures,
    run=run,
    primary=tuple(
        Difference(
            f"h1{letter}",
            f"{NAMES[network]}: accuracy rises",
            partial(gained, network=network, kind="accuracy"),
            POINTS,
        )
        for letter, network in zip("ab", NAMES, strict=True)
    ),
    secondary=tuple(
        Difference(
            f"h1{letter}",
            f"{NAMES[network]}: loss falls",
            partial(gained, network=network, kind="loss"),
            NATS,
        )
        for letter, network in zip("cd", NAMES, strict=True)
    ),
    tables=(
        Table(
            "Test images without weighing and at the chosen weight",
            "",
            (
                ("accuracy, without", PERCENT),
                ("accuracy, weighed", PERCENT),
                ("weight", PLAIN),
                ("loss, without", NATS),
                ("loss, weighed", NATS),
                ("weight", PLAIN),
            ),
            tuple(_row(network) for network in NAMES),
        ),
    ),
    plot=plot,
    prepares=(NOISY, side_by_side(2)),
)
