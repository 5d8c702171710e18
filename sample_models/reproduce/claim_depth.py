"""Claim a: shift accumulates with depth in stacks of BN, more so at small batch.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
a1 At batch 2 the total ESM of the last third of the layers exceeds what these layers' own
   estimates get wrong: log of the ratio of the root mean squares above 0.
a2 At batch 2 the ratio total/own rises with depth: Spearman's correlation over the twelve layers
   above 0 on average.
a3 What the last third inherits falls with the batch size: the slope of log(inherited) over
   log2(batch size), at 2, 8, 32 and 128, below 0.
Secondary: a1 at 8, 32 and 128; the ratio itself is larger at 2 than at 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from reproduce.claim import FACTOR, PLAIN, SHIFT, Claim, Difference, Row, Table
from reproduce.drawing import COLOURS, MARKERS, band, drawn, panels
from reproduce.figures import attributed, plain_shift, root_mean_square
from reproduce.networks import DEPTH
from reproduce.stacks import BATCHES, side_by_side, stack
from reproduce.zoo import Zoo

LAST_THIRD = slice(DEPTH - DEPTH // 3, DEPTH)


@dataclass(frozen=True)
class Depth:
    """ESM of the twelve layers on the training set, of a stack trained at `batch_size`."""

    batch_size: int
    total: tuple[float, ...]
    own: tuple[float, ...]
    inherited: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """The stacks of one seed, in the order of `BATCHES`."""

    stacks: tuple[Depth, ...]


def run(zoo: Zoo) -> Figures:
    """Measure the stacks on the training set, the population that their estimates are of."""
    return Figures(tuple(_depth(zoo, batch_size) for batch_size in BATCHES))


def _depth(zoo: Zoo, batch_size: int) -> Depth:
    layers = attributed(stack(zoo, batch_size), zoo.train).audited
    return Depth(
        batch_size,
        tuple(plain_shift(layer) for layer in layers),
        tuple(layer.own_shift.plain for layer in layers if layer.own_shift is not None),
        tuple(layer.inherited_shift or 0.0 for layer in layers),
    )


def deep_ratio(figures: Figures, which: int) -> float:
    """Log of total over own ESM in the last third."""
    one = figures.stacks[which]
    total, own = root_mean_square(one.total[LAST_THIRD]), root_mean_square(one.own[LAST_THIRD])
    return math.log(total / own)


def rising(figures: Figures, which: int) -> float:
    """Spearman's correlation of total/own with depth."""
    one = figures.stacks[which]
    ratios = np.array(one.total) / np.array(one.own)
    return float(stats.spearmanr(ratios, np.arange(DEPTH)).statistic)


def falling(figures: Figures) -> float:
    """How fast the log of the inherited ESM of the last third falls, for a doubled batch size."""
    deep = [math.log(root_mean_square(one.inherited[LAST_THIRD])) for one in figures.stacks]
    doublings = [math.log2(one.batch_size) for one in figures.stacks]
    return -float(np.polyfit(doublings, deep, 1)[0])


def deep_of(figures: Figures, which: int, kind: str) -> float:
    """The ESM of the last third: `total`, `own` or `inherited`."""
    return root_mean_square(getattr(figures.stacks[which], kind)[LAST_THIRD])


def _row(which: int) -> Row:
    cells: list[Callable[[Figures], float]] = [
        partial(deep_of, which=which, kind=kind) for kind in ("own", "inherited", "total")
    ]
    cells += [partial(deep_ratio, which=which), partial(rising, which=which)]
    return Row(f"batch {BATCHES[which]}", tuple(cells))


def plot(figures: Sequence[Figures]) -> Figure:
    """Total and own ESM by depth, and their ratio, for each batch size."""
    figure, (left, right) = panels(2, "Claim a: shift by depth in stacks of twelve BN layers")
    x = np.arange(1, DEPTH + 1)
    for which, batch_size in enumerate(BATCHES):
        style = {"color": COLOURS[which], "marker": MARKERS[which]}
        total = np.array([one.stacks[which].total for one in figures])
        own = np.array([one.stacks[which].own for one in figures])
        band(left, x, total, label=f"batch {batch_size}, total", **style)
        left.plot(x, own.mean(axis=0), ls=":", lw=1.2, color=COLOURS[which])
        band(right, x, total / own, label=f"batch {batch_size}", **style)
    left.plot([], [], ls=":", lw=1.2, color="black", label="own (dotted)")
    left.set_yscale("log")
    left.set_ylabel("ESM on the training set\n(standard deviations)")
    right.axhline(1, color="black", lw=0.8)
    right.set_ylabel("total / own")
    for axes in (left, right):
        axes.set_xlabel("BN layer")
        axes.set_xticks(x)
    return drawn(figure, left, right)


CLAIM = Claim(
    key="a",
    title="Shift accumulates with depth in stacks of BN, more so at small batch",
    says="Huang 2022, section 3: the estimation shift of a BN layer disturbs the input of the next "
    "one, so that it accumulates over stacked BN layers and is larger the smaller the batch.",
    recipe="P12 (twelve times convolution, BN, ReLU; width 16) trained at batch 2, 8, 32 and 128 "
    "with learning rate 0.005, 0.02, 0.05 and 0.1, 6 epochs at batch 2 and 15 at the others, BN "
    "momentum 0.1. `bnaudit.measure` with attribution on the 900 training images: the population "
    "that the estimates are of, so the plain ESM has no sampling noise in it. Own shift: with "
    "every layer upstream corrected. Last third: layers 9 to 12.",
    seeds=10,
    figures=Figures,
    run=run,
    primary=(
        Difference(
            "a1",
            "batch 2: total over own ESM in the last third is above 1",
            partial(deep_ratio, which=0),
            FACTOR,
        ),
        Difference(
            "a2",
            "batch 2: total/own rises with depth (Spearman's correlation)",
            partial(rising, which=0),
            PLAIN,
        ),
        Difference(
            "a3",
            "what the last third inherits falls with the batch size (factor for each doubling)",
            falling,
            FACTOR,
        ),
    ),
    secondary=(
        *(
            Difference(
                f"a{which + 3}",
                f"batch {BATCHES[which]}: total over own ESM in the last third is above 1",
                partial(deep_ratio, which=which),
                FACTOR,
            )
            for which in (1, 2, 3)
        ),
        Difference(
            "a7",
            "the ratio total/own itself is larger at batch 2 than at 128",
            lambda one: deep_ratio(one, 0) - deep_ratio(one, 3),
            FACTOR,
        ),
    ),
    tables=(
        Table(
            "ESM of the last third of the layers",
            "",
            (
                ("own", SHIFT),
                ("inherited", SHIFT),
                ("total", SHIFT),
                ("total / own", FACTOR),
                ("Spearman of total/own with depth", PLAIN),
            ),
            tuple(_row(which) for which in range(len(BATCHES))),
        ),
    ),
    plot=plot,
    prepares=(side_by_side(2), side_by_side(8)),
)
