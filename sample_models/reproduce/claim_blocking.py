"""Claim b: a batch-free norm (BFN) in the stack blocks the accumulation.

The same stack with Group Norm (4 groups) at every second layer; the BN layers at the first, third,
… position are in both. Compared are those after the first: it has nothing upstream.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
b1 Trained at batch 2, on the training set: total over own ESM of these layers is smaller with GN.
b2 The same stacks: their total ESM is smaller with GN.
b3 Trained at batch 32, on fogged test images (0.5 x + 0.4): their total ESM is smaller with GN.
Secondary: the last of these layers alone, as in b2 and b3; accuracy on the fogged images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from reproduce.claim import FACTOR, PERCENT, POINTS, SHIFT, Claim, Difference, Row, Table
from reproduce.data import SHIFTS
from reproduce.drawing import COLOURS, MARKERS, band, drawn, panels
from reproduce.figures import attributed, deployed, measured, plain_shift, root_mean_square
from reproduce.networks import DEPTH, Norm, batch_norm, group_norm_at_every_second
from reproduce.stacks import side_by_side, stack
from reproduce.zoo import Zoo

COMMON = tuple(f"norms.{position}" for position in range(0, DEPTH, 2))
FOG = SHIFTS["fog, 0.5 x + 0.4"]


@dataclass(frozen=True)
class Stack:
    """ESM of the six common BN layers: on the training set (batch 2), on fogged images (batch 32).

    `accuracy`: on the fogged images, of the stack trained at batch 32.
    """

    total: tuple[float, ...]
    own: tuple[float, ...]
    fogged: tuple[float, ...]
    accuracy: float


@dataclass(frozen=True)
class Figures:
    """One seed: BN at every layer, and Group Norm at every second one."""

    bn: Stack
    blocked: Stack


def run(zoo: Zoo) -> Figures:
    """Measure both stacks."""
    return Figures(_stack(zoo, batch_norm), _stack(zoo, group_norm_at_every_second))


def _stack(zoo: Zoo, norm: Norm) -> Stack:
    clean = attributed(stack(zoo, 2, norm), zoo.train)
    fogged = measured(stack(zoo, 32, norm), zoo.test.through(FOG))
    own = [clean.layer(name).own_shift for name in COMMON]
    return Stack(
        total=tuple(plain_shift(clean.layer(name)) for name in COMMON),
        own=tuple(shift.plain for shift in own if shift is not None),
        fogged=tuple(plain_shift(fogged.layer(name)) for name in COMMON),
        accuracy=deployed(fogged).accuracy,
    )


def after_first(one: Stack, kind: str) -> float:
    """The root mean square over the common layers after the first."""
    return root_mean_square(getattr(one, kind)[1:])


def smaller(figures: Figures, kind: str) -> float:
    """Log of that without GN over with GN."""
    return math.log(after_first(figures.bn, kind) / after_first(figures.blocked, kind))


def less_inherited(figures: Figures) -> float:
    """Log of total/own without GN over with GN."""
    return smaller(figures, "total") - smaller(figures, "own")


def smaller_last(figures: Figures, kind: str) -> float:
    """Log of the last common layer's ESM without GN over with GN."""
    return math.log(getattr(figures.bn, kind)[-1] / getattr(figures.blocked, kind)[-1])


def _cells(network: str) -> Row:
    def of(kind: str) -> partial[float]:
        return partial(lambda one, kind: after_first(getattr(one, network), kind), kind=kind)

    return Row(
        {"bn": "BN everywhere", "blocked": "GN at every second layer"}[network],
        (
            of("own"),
            of("total"),
            lambda one: math.log(of("total")(one) / of("own")(one)),
            of("fogged"),
            lambda one: getattr(one, network).accuracy,
        ),
    )


def plot(figures: Sequence[Figures]) -> Figure:
    """ESM of the common layers with and without Group Norm between them."""
    figure, (left, right) = panels(2, "Claim b: the same BN layers, with and without GN between")
    x = np.arange(1, DEPTH + 1, 2)
    for place, (network, label) in enumerate((("bn", "BN everywhere"), ("blocked", "GN between"))):
        style = {"color": COLOURS[(0, 3)[place]], "marker": MARKERS[place]}
        for axes, kind in ((left, "total"), (right, "fogged")):
            values = np.array([getattr(getattr(one, network), kind) for one in figures])
            band(axes, x, values, label=label, **style)
    left.set_title("trained at batch 2, training set", fontsize=9)
    right.set_title("trained at batch 32, fogged test images", fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("position of the BN layer in the stack")
        axes.set_xticks(x)
        axes.set_ylabel("total ESM (standard deviations)")
        axes.set_ylim(bottom=0)
    return drawn(figure, left, right)


CLAIM = Claim(
    key="b",
    title="A batch-free norm in the stack blocks the accumulation",
    says="Huang 2022, sections 3 and 4: a batch-free normalisation (Group Norm) between BN layers "
    "blocks the accumulation of estimation shift, for it normalises its input anew at inference.",
    recipe="P12 as in claim a, against the same with Group Norm (4 groups) at the second, fourth, "
    "… layer; same initial weights and order of samples. Compared are the five BN layers that both "
    "have after the first. Trained at batch 2: on the training set. Trained at batch 32: on the "
    "test images under fog, 0.5 x + 0.4.",
    seeds=10,
    figures=Figures,
    run=run,
    primary=(
        Difference(
            "b1",
            "batch 2, training set: total/own is smaller with GN (factor)",
            less_inherited,
            FACTOR,
        ),
        Difference(
            "b2",
            "batch 2, training set: total ESM is smaller with GN (factor)",
            partial(smaller, kind="total"),
            FACTOR,
        ),
        Difference(
            "b3",
            "batch 32, fogged images: total ESM is smaller with GN (factor)",
            partial(smaller, kind="fogged"),
            FACTOR,
        ),
    ),
    secondary=(
        Difference(
            "b4",
            "batch 2, training set: ESM of the last common layer is smaller (factor)",
            partial(smaller_last, kind="total"),
            FACTOR,
        ),
        Difference(
            "b5",
            "batch 32, fogged images: ESM of the last common layer is smaller (factor)",
            partial(smaller_last, kind="fogged"),
            FACTOR,
        ),
        Difference(
            "b6",
            "accuracy on the fogged images is higher with GN",
            lambda one: one.blocked.accuracy - one.bn.accuracy,
            POINTS,
        ),
    ),
    tables=(
        Table(
            "The five BN layers that both have after the first (root mean square)",
            "",
            (
                ("own ESM, training set", SHIFT),
                ("total ESM, training set", SHIFT),
                ("total / own", FACTOR),
                ("total ESM, fogged", SHIFT),
                ("accuracy, fogged", PERCENT),
            ),
            (_cells("bn"), _cells("blocked")),
        ),
    ),
    plot=plot,
    prepares=(side_by_side(2), side_by_side(2, group_norm_at_every_second)),
)
