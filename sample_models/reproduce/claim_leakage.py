"""Claim g: batches grouped by class leak: the network learns to read its batch mates.

R9 with Ghost BN, batch 64 in ghost batches of 8. Grouped: the eight images of a ghost batch are of
one class, as when a worker normalises what it loads from one folder. Control: in random order.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
g1 The network trained grouped is more accurate, in train mode on test images, when mini-batches of
   8 are grouped by class than when they are shuffled.
g2 This gap is larger than the control's.
g3 At inference (estimated statistics) it is less accurate than the control.
Secondary: exact recalibration does not mend it, it stays less accurate than the control; its ESM on
the training data does not tell, it is no larger than 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader
from train import Recipe

import bnaudit
from bnaudit import nn as bnn
from reproduce.claim import PERCENT, POINTS, SHIFT, Claim, Difference, Row, Table
from reproduce.data import Images
from reproduce.drawing import COLOURS, categories, drawn, panels
from reproduce.figures import deployed, measured, shift_of, train_mode
from reproduce.networks import R9
from reproduce.training import Batches, fit, shuffled
from reproduce.zoo import Zoo

GHOST = 8
RECIPE = Recipe(batch_size=64)
NAMES = {"grouped": "trained grouped", "control": "trained shuffled"}


@dataclass(frozen=True)
class Network:
    """Test accuracy in train mode with grouped and with shuffled mini-batches, and at inference.

    `exact`: with recalibrated statistics; `shift`: the ESM of the estimates on training data.
    """

    grouped: float
    shuffled: float
    inference: float
    exact: float
    shift: float


@dataclass(frozen=True)
class Figures:
    """One seed."""

    grouped: Network
    control: Network


def one_class_each(labels: Tensor) -> list[Tensor]:
    """The samples dealt at random to mini-batches of 8 of one class, what is left over omitted."""
    chunks: list[Tensor] = []
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        members = members[torch.randperm(len(members))]
        chunks += [chunk for chunk in members.split(GHOST) if len(chunk) == GHOST]
    return [chunks[place] for place in torch.randperm(len(chunks))]


def grouped(labels: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Batches of 64 in which each ghost batch is of one class."""
    chunks = one_class_each(labels)
    together = recipe.batch_size // GHOST
    for first in range(0, len(chunks) - together + 1, together):
        yield torch.cat(chunks[first : first + together])


def run(zoo: Zoo) -> Figures:
    """Train both networks from the same weights and measure them on the same test images."""
    return Figures(_network(zoo, grouped), _network(zoo, shuffled))


def _network(zoo: Zoo, batches: Batches) -> Network:
    network = fit(_ghosts, RECIPE, zoo.train, zoo.seed, batches)
    generator = torch.random.get_rng_state()
    torch.manual_seed(zoo.seed)
    chunks = one_class_each(zoo.test.labels)
    torch.random.set_rng_state(generator)
    same = torch.cat(chunks)
    test = Images(zoo.test.images[same], zoo.test.labels[same])
    shift = shift_of(measured(network, zoo.train))
    loader = DataLoader(zoo.test.data(), batch_sampler=[chunk.tolist() for chunk in chunks])
    by_class = bnaudit.measure(network, loader, train_batch_size=GHOST, attribute="none")
    mixed = measured(network, test, GHOST)
    bnaudit.recalibrate(network, zoo.train.data(), batch_size=900)
    return Network(
        train_mode(by_class).accuracy,
        train_mode(mixed).accuracy,
        deployed(mixed).accuracy,
        deployed(measured(network, test)).accuracy,
        shift,
    )


def _ghosts() -> nn.Module:
    return bnn.convert(R9(), "ghost", ghost_size=GHOST).model


def gap(network: Network) -> float:
    """Accuracy in train mode with grouped less with shuffled mini-batches."""
    return network.grouped - network.shuffled


def _row(name: str) -> Row:
    kinds = ("grouped", "shuffled", "inference", "exact", "shift")
    cells = [
        partial(lambda one, kind: float(getattr(getattr(one, name), kind)), kind=kind)
        for kind in kinds
    ]
    return Row(NAMES[name], tuple(cells))


def plot(figures: Sequence[Figures]) -> Figure:
    """Accuracy of both networks under each arrangement."""
    figure, axes = panels(2, "Claim g: mini-batches of 8 grouped by class (R9, Ghost BN)")
    kinds = ("grouped", "shuffled", "inference", "exact")
    labels = ("train mode,\ngrouped", "train mode,\nshuffled", "inference", "inference,\nexact")
    colours = (COLOURS[0], COLOURS[1], COLOURS[3], COLOURS[2])
    for panel, name in zip(axes, NAMES, strict=True):
        values = [[100 * getattr(getattr(one, name), kind) for one in figures] for kind in kinds]
        categories(panel, labels, values, colours)
        panel.set_title(NAMES[name], fontsize=9)
        panel.set_ylabel("test accuracy (%)")
        panel.set_ylim(0, 104)
        panel.tick_params(axis="x", labelsize=8)
    return drawn(figure)


CLAIM = Claim(
    key="g",
    title="Batches grouped by class leak",
    says="Wu 2021, section 6: where the samples of a normalisation batch are correlated, as when "
    "they are of one class, the network learns to use the batch statistics as a hint, and fails "
    "when the hint is gone.",
    recipe="R9 with `GhostBatchNorm`, batch 64 normalised in ghost batches of 8, learning rate "
    "0.1, cosine, 15 epochs. Grouped: each ghost batch of one class; control: random. Test images "
    "in mini-batches of 8, the same images in both arrangements.",
    seeds=10,
    figures=Figures,
    run=run,
    primary=(
        Difference(
            "g1",
            "trained grouped, train mode: accuracy, grouped − shuffled",
            lambda one: gap(one.grouped),
            POINTS,
        ),
        Difference(
            "g2",
            "this gap is larger than that of the network trained shuffled",
            lambda one: gap(one.grouped) - gap(one.control),
            POINTS,
        ),
        Difference(
            "g3",
            "inference: accuracy, trained shuffled − trained grouped",
            lambda one: one.control.inference - one.grouped.inference,
            POINTS,
        ),
    ),
    secondary=(
        Difference(
            "g4",
            "exact statistics: accuracy, trained shuffled − trained grouped",
            lambda one: one.control.exact - one.grouped.exact,
            POINTS,
        ),
        Difference(
            "g5",
            "trained grouped: ESM on the training data is below 0.1 all the same",
            lambda one: 0.1 - one.grouped.shift,
            SHIFT,
        ),
    ),
    tables=(
        Table(
            "Test images",
            "",
            (
                ("train mode, grouped", PERCENT),
                ("train mode, shuffled", PERCENT),
                ("inference", PERCENT),
                ("inference, exact", PERCENT),
                ("ESM, training data", SHIFT),
            ),
            (_row("grouped"), _row("control")),
        ),
    ),
    plot=plot,
)
