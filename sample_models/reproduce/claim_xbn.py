"""Claim c: XBN blocks beat BN blocks under shifted data.

R9 as it is, and with `bnaudit.nn.convert(model, "xbn")` at its default position, as in the authors'
code: Group Norm for the first norm of each basic block and for the stem's.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
c1 On average over eight shifts of the test images XBN has the higher accuracy.
c2 On average over the eight shifts the ESM of the BN layers that both have is smaller with XBN.
Secondary: the same with the stem's BN left as it is, for Group Norm there removes part of the shift
before any BN layer sees it; XBN is not worse on the unshifted images (equivalent within 1 point);
XBN without recalibration beats BN recalibrated on 400 images of the shifted domain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from torch import nn
from train import Recipe

import bnaudit
from bnaudit import nn as bnn
from reproduce.claim import (
    FACTOR,
    PERCENT,
    POINTS,
    SHIFT,
    Claim,
    Difference,
    Equivalence,
    Row,
    Table,
)
from reproduce.data import SHIFTS
from reproduce.drawing import COLOURS, MARKERS, drawn, panels
from reproduce.figures import deployed, measured, shift_of
from reproduce.networks import GROUPS, R9
from reproduce.significance import interval_of
from reproduce.training import fit
from reproduce.zoo import Zoo

COMMON = tuple(f"blocks.{block}.bn2" for block in range(4))
NAMES = {"bn": "BN", "xbn": "XBN", "blocks_only": "XBN, BN in the stem", "renewed": "BN, recalib."}


@dataclass(frozen=True)
class Network:
    """Accuracy on the unshifted test images, and accuracy and ESM of the common layers by shift."""

    clean: float
    accuracy: tuple[float, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """One seed; `renewed`: BN with exact statistics of 400 images of the shifted domain."""

    bn: Network
    xbn: Network
    blocks_only: Network
    renewed: Network


def run(zoo: Zoo) -> Figures:
    """Train the three networks from the same weights and measure them under each shift."""
    bn = zoo.network("R9", lambda: fit(R9, Recipe(), zoo.train, zoo.seed))
    return Figures(
        _network(zoo, bn),
        _network(zoo, fit(partial(_xbn, stem=True), Recipe(), zoo.train, zoo.seed)),
        _network(zoo, fit(partial(_xbn, stem=False), Recipe(), zoo.train, zoo.seed)),
        _renewed(zoo, bn),
    )


def _xbn(stem: bool) -> nn.Module:
    return bnn.convert(R9(), "xbn", norm="group", groups=GROUPS, stem=stem).model


def _network(zoo: Zoo, network: nn.Module) -> Network:
    audits = [measured(network, zoo.test.through(shift)) for shift in SHIFTS.values()]
    return Network(
        deployed(measured(network, zoo.test)).accuracy,
        tuple(deployed(audit).accuracy for audit in audits),
        tuple(shift_of(audit, COMMON) for audit in audits),
    )


def _renewed(zoo: Zoo, network: nn.Module) -> Network:
    accuracy, esm = [], []
    for shift in SHIFTS.values():
        renewed = bnaudit.recalibrate(network, zoo.verify.through(shift).data(), batch_size=400)
        audit = measured(network, zoo.test.through(shift))
        renewed.revert()
        accuracy.append(deployed(audit).accuracy)
        esm.append(shift_of(audit, COMMON))
    clean = deployed(measured(network, zoo.test)).accuracy
    return Network(clean, tuple(accuracy), tuple(esm))


def more_accurate(figures: Figures, network: str, than: str) -> float:
    """Accuracy of one network less that of another, over the shifts."""
    return float(
        np.mean(getattr(figures, network).accuracy) - np.mean(getattr(figures, than).accuracy)
    )


def less_shifted(figures: Figures, network: str) -> float:
    """Log of the ESM with BN over that of another network, over the shifts."""
    pairs = zip(figures.bn.shift, getattr(figures, network).shift, strict=True)
    return float(np.mean([math.log(bn / other) for bn, other in pairs]))


def _shift_row(which: int, label: str) -> Row:
    def accuracy(one: Figures, network: str) -> float:
        return float(getattr(one, network).accuracy[which])

    def shift(one: Figures, network: str) -> float:
        return float(getattr(one, network).shift[which])

    return Row(
        label,
        (
            *(partial(accuracy, network=network) for network in NAMES),
            *(partial(shift, network=network) for network in ("bn", "xbn", "blocks_only")),
        ),
    )


def _mean_row() -> Row:
    def mean(one: Figures, network: str, kind: str) -> float:
        return float(np.mean(getattr(getattr(one, network), kind)))

    return Row(
        "mean of the shifts",
        (
            *(partial(mean, network=network, kind="accuracy") for network in NAMES),
            *(partial(mean, network=name, kind="shift") for name in ("bn", "xbn", "blocks_only")),
        ),
    )


def _clean_row() -> Row:
    def clean(one: Figures, network: str) -> float:
        return float(getattr(one, network).clean)

    return Row("no shift", (*(partial(clean, network=name) for name in NAMES), None, None, None))


def plot(figures: Sequence[Figures]) -> Figure:
    """Accuracy and ESM by shift and network."""
    figure, (left, right) = panels(2, "Claim c: BN and XBN blocks under eight shifts")
    figure.set_size_inches(9.6, 4.4)
    places = np.arange(len(SHIFTS))
    kinds: list[tuple[str, str, float]] = [
        ("accuracy", "accuracy (%)", 100),
        ("shift", "ESM of the four common BN layers", 1),
    ]
    for axes, (kind, label, factor) in zip((left, right), kinds, strict=True):
        for order, network in enumerate(("bn", "xbn", "blocks_only")):
            of_shift: Callable[[int], list[float]] = partial(_values, figures, network, kind)
            means = [interval_of([factor * v for v in of_shift(place)]) for place in places]
            axes.errorbar(
                places + 0.2 * (order - 1),
                [each.mean for each in means],
                yerr=[[e.mean - e.low for e in means], [e.high - e.mean for e in means]],
                ls="",
                capsize=2,
                ms=5,
                color=(COLOURS[0], COLOURS[3], COLOURS[2])[order],
                marker=MARKERS[order],
                label=NAMES[network],
            )
        axes.set_xticks(places, list(SHIFTS), rotation=40, ha="right", fontsize=7.5)
        axes.set_ylabel(label)
    right.set_ylim(bottom=0)
    return drawn(figure, left)


def _values(figures: Sequence[Figures], network: str, kind: str, place: int) -> list[float]:
    return [float(getattr(getattr(one, network), kind)[place]) for one in figures]


CLAIM = Claim(
    key="c",
    title="XBN blocks beat BN blocks under shifted data",
    says="Huang 2022, sections 4 and 5: XBNBlock, in which a batch-free norm replaces one BN of a "
    "residual block, suffers less estimation shift and is more accurate, above all where the test "
    "data are distributed otherwise than the training data.",
    recipe="R9 (stem and four basic blocks, no norm on skips), batch 32, learning rate 0.1, "
    'cosine, 15 epochs, as it is and with `bnaudit.nn.convert(model, "xbn")`, Group Norm with 4 '
    "groups: for the first norm of each block and the stem's, as in the authors' code, and with "
    "the stem's left. Eight shifts of the test images. ESM over the second BN layers of the four "
    "blocks, which all have.",
    seeds=10,
    figures=Figures,
    run=run,
    primary=(
        Difference(
            "c1",
            "accuracy over the shifts: XBN − BN",
            partial(more_accurate, network="xbn", than="bn"),
            POINTS,
        ),
        Difference(
            "c2",
            "ESM of the common layers over the shifts: BN / XBN",
            partial(less_shifted, network="xbn"),
            FACTOR,
        ),
    ),
    secondary=(
        Difference(
            "c3",
            "accuracy over the shifts: XBN with BN in the stem − BN",
            partial(more_accurate, network="blocks_only", than="bn"),
            POINTS,
        ),
        Difference(
            "c4",
            "ESM of the common layers: BN / XBN with BN in the stem",
            partial(less_shifted, network="blocks_only"),
            FACTOR,
        ),
        Equivalence(
            "c5",
            "accuracy without a shift: XBN and BN equivalent",
            lambda one: one.xbn.clean - one.bn.clean,
            POINTS,
            0.01,
        ),
        Difference(
            "c6",
            "accuracy over the shifts: XBN − recalibrated BN",
            partial(more_accurate, network="xbn", than="renewed"),
            POINTS,
        ),
    ),
    tables=(
        Table(
            "Test images",
            " (recalib.: exact statistics of 400 unlabelled images of the shifted domain)",
            (
                *((f"accuracy, {name}", PERCENT) for name in NAMES.values()),
                ("ESM, BN", SHIFT),
                ("ESM, XBN", SHIFT),
                ("ESM, XBN, BN in the stem", SHIFT),
            ),
            (
                _clean_row(),
                *(_shift_row(place, name) for place, name in enumerate(SHIFTS)),
                _mean_row(),
            ),
        ),
    ),
    plot=plot,
)
