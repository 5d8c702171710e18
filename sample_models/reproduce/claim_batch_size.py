"""Claim e: train-mode against inference error over the batch size, and FrozenBN closing the gap.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
e1 Trained at batch 2, the error on the training images is larger in train mode (mini-batch
   statistics of 2) than at inference.
e2 This gap falls with the batch size: its slope over log2 of 2, 8, 32 and 128 is below 0.
e3 With the statistics frozen for the last third of the epochs at batch 2, the test error at
   inference is smaller than without.
Secondary: the gap at 32 is above 0; freezing makes the test loss smaller; the ESM on the training
images is larger after freezing (the weights adapt to the constants: no fault, see
`docs/training.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from bnaudit.results import Audit
from reproduce.claim import NATS, PERCENT, POINTS, SHIFT, Claim, Difference, Row, Table
from reproduce.drawing import COLOURS, MARKERS, band, categories, drawn, panels
from reproduce.figures import deployed, inference, measured, shift_of, train_mode
from reproduce.stacks import BATCHES, side_by_side, stack
from reproduce.zoo import Zoo

FROZEN_FROM = 5
"""The epoch, of 6 at batch 2, from which on the statistics are frozen."""

FROZEN = side_by_side(2, frozen_from=FROZEN_FROM)


@dataclass(frozen=True)
class Errors:
    """Error (0 to 1) in train mode, by mini-batches of `batch_size`, and at inference."""

    batch_size: int
    train_mode: float
    inference: float
    test_train_mode: float
    test_inference: float


@dataclass(frozen=True)
class FineTuned:
    """At inference on the test images; `gap` is that of `Errors` on the training images, and
    `shift` the ESM there."""

    error: float
    loss: float
    gap: float
    shift: float


@dataclass(frozen=True)
class Figures:
    """One seed: the stacks in the order of `BATCHES`, and the two ends of training at batch 2."""

    stacks: tuple[Errors, ...]
    usual: FineTuned
    frozen: FineTuned


def run(zoo: Zoo) -> Figures:
    """Measure the stacks, and train one more with FrozenBN at the end."""
    return Figures(
        tuple(_errors(zoo, batch_size) for batch_size in BATCHES),
        _fine_tuned(zoo, stack(zoo, BATCHES[0])),
        _fine_tuned(zoo, zoo.prepared(FROZEN)),
    )


def _errors(zoo: Zoo, batch_size: int) -> Errors:
    network = stack(zoo, batch_size)
    train, test = (measured(network, data, batch_size) for data in (zoo.train, zoo.test))
    return Errors(
        batch_size,
        *(1 - quality(audit).accuracy for audit in (train, test) for quality in _BOTH),
    )


_BOTH = (train_mode, inference)


def _fine_tuned(zoo: Zoo, network: nn.Module) -> FineTuned:
    train, test = measured(network, zoo.train, BATCHES[0]), measured(network, zoo.test)
    quality = deployed(test)
    return FineTuned(1 - quality.accuracy, quality.loss, _gap(train), shift_of(train))


def _gap(audit: Audit) -> float:
    if all(layer.frozen for layer in audit.audited):
        return 0.0  # no layer normalises by mini-batches: train mode is inference
    return inference(audit).accuracy - train_mode(audit).accuracy


def gap(figures: Figures, which: int) -> float:
    """Error in train mode less at inference, on the training images."""
    one = figures.stacks[which]
    return one.train_mode - one.inference


def falling(figures: Figures) -> float:
    """By how much the gap falls for each doubling of the batch size."""
    doublings = [float(np.log2(batch_size)) for batch_size in BATCHES]
    gaps = [gap(figures, which) for which in range(len(BATCHES))]
    return -float(np.polyfit(doublings, gaps, 1)[0])


def _stack_row(which: int) -> Row:
    kinds = ("train_mode", "inference", "test_train_mode", "test_inference")
    cells = [
        partial(lambda one, kind: float(getattr(one.stacks[which], kind)), kind=kind)
        for kind in kinds
    ]
    return Row(f"batch {BATCHES[which]}", (*cells[:2], partial(gap, which=which), *cells[2:]))


def _tuned_row(name: str, label: str) -> Row:
    cells = [
        partial(lambda one, kind: float(getattr(getattr(one, name), kind)), kind=kind)
        for kind in ("error", "loss", "gap", "shift")
    ]
    return Row(label, tuple(cells))


def plot(figures: Sequence[Figures]) -> Figure:
    """Errors over the batch size, and the test error with and without freezing."""
    figure, (left, right) = panels(2, "Claim e: train mode against inference (P12)")
    for place, (kind, label) in enumerate(
        (("train_mode", "train mode"), ("inference", "inference"))
    ):
        style = {"color": COLOURS[(0, 3)[place]], "marker": MARKERS[place]}
        values = np.array([[getattr(x, kind) for x in one.stacks] for one in figures])
        band(left, BATCHES, 100 * values, label=label, **style)
    left.set_xscale("log", base=2)
    left.set_xticks(BATCHES, [str(batch_size) for batch_size in BATCHES])
    left.set_xlabel("batch size of training, and of the mini-batches")
    left.set_ylabel("error on the training images (%)")
    left.set_ylim(bottom=0)
    values = [[100 * getattr(one, name).error for one in figures] for name in ("usual", "frozen")]
    labels = ("batch statistics\nto the end", "FrozenBN in the\nlast third")
    categories(right, labels, values, (COLOURS[0], COLOURS[3]))
    right.set_ylabel("test error at batch 2 (%)")
    right.set_ylim(bottom=0)
    return drawn(figure, left)


CLAIM = Claim(
    key="e",
    title="Train mode and inference disagree at small batch; FrozenBN fine-tuning closes the gap",
    says="Wu 2021, sections 4 and 5: the smaller the normalisation batch, the larger the "
    "inconsistency between training (mini-batch statistics) and inference (population statistics); "
    "training the last epochs with FrozenBN removes it and lowers the test error.",
    recipe="P12 at the four batch sizes of claim a. Train mode: mini-batch statistics at the size "
    "of training. FrozenBN: batch 2 again from the same weights and order, with "
    "`bnaudit.nn.freeze` from epoch 5 of 6 on.",
    seeds=10,
    figures=Figures,
    run=run,
    primary=(
        Difference(
            "e1",
            "batch 2, training images: error in train mode − at inference",
            partial(gap, which=0),
            POINTS,
        ),
        Difference("e2", "this gap falls with each doubling of the batch size", falling, POINTS),
        Difference(
            "e3",
            "batch 2: the test error falls by FrozenBN",
            lambda one: one.usual.error - one.frozen.error,
            POINTS,
        ),
    ),
    secondary=(
        Difference("e4", "batch 32: the gap is above 0", partial(gap, which=2), POINTS),
        Difference(
            "e5",
            "batch 2: the test loss falls by FrozenBN",
            lambda one: one.usual.loss - one.frozen.loss,
            NATS,
        ),
        Difference(
            "e6",
            "batch 2: the ESM on the training images is larger with FrozenBN",
            lambda one: one.frozen.shift - one.usual.shift,
            SHIFT,
        ),
    ),
    tables=(
        Table(
            "Errors of the stacks",
            "",
            (
                ("train mode, training images", PERCENT),
                ("inference, training images", PERCENT),
                ("gap", POINTS),
                ("train mode, test images", PERCENT),
                ("inference, test images", PERCENT),
            ),
            tuple(_stack_row(which) for which in range(len(BATCHES))),
        ),
        Table(
            "Batch 2, the end of training",
            "",
            (
                ("test error", PERCENT),
                ("test loss", NATS),
                ("gap, training images", POINTS),
                ("ESM, training images", SHIFT),
            ),
            (
                _tuned_row("usual", "batch statistics to the end"),
                _tuned_row("frozen", "FrozenBN in the last third"),
            ),
        ),
    ),
    plot=plot,
    prepares=(side_by_side(2), side_by_side(8), FROZEN),
)
