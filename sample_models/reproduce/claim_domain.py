"""Claim f: recalibration recovers accuracy under domain shift, and how many images it takes.

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
f1 On average over four shifts, statistics of 64 unlabelled images of the shifted domain give a
   higher test accuracy than the training domain's.
f2 So do those of 16 images.
Secondary: each shift alone, with 64 images; two images are worse than none; 64 images are within 1
point of 400.
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
from reproduce.claim import PERCENT, POINTS, Claim, Difference, Equivalence, Row, Table
from reproduce.data import SHIFTS, Images
from reproduce.digits_net import digits_net
from reproduce.drawing import COLOURS, MARKERS, band, panels
from reproduce.figures import deployed, measured
from reproduce.significance import interval_of
from reproduce.zoo import Zoo

DOMAINS = ("brighter, x + 0.2", "contrast, 0.6 x + 0.2", "blur, 3×3 mean", "noise 0.2")
COUNTS = (2, 8, 16, 32, 64, 128, 400)
DRAWS = 2
NEAR = 0.01


@dataclass(frozen=True)
class Domain:
    """Test accuracy in one domain: unadapted, and by how many images, the mean over the draws."""

    before: float
    after: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """One seed, in the order of `DOMAINS`."""

    domains: tuple[Domain, ...]


def run(zoo: Zoo) -> Figures:
    """Recalibrate the healthy network on few images of each domain."""
    network = digits_net(zoo, Recipe())
    return Figures(tuple(_domain(zoo, network, name) for name in DOMAINS))


def _domain(zoo: Zoo, network: nn.Module, name: str) -> Domain:
    calibration, test = zoo.verify.through(SHIFTS[name]), zoo.test.through(SHIFTS[name])
    after = []
    for count in COUNTS:
        draws = DRAWS if count < len(calibration.labels) else 1
        drawn_accuracies = [_adapted(network, calibration, test, count, d) for d in range(draws)]
        after.append(float(np.mean(drawn_accuracies)))
    return Domain(deployed(measured(network, test)).accuracy, tuple(after))


def _adapted(network: nn.Module, calibration: Images, test: Images, count: int, draw: int) -> float:
    adapted = bnaudit.recalibrate(
        network, calibration.data(), samples=count, seed=draw, batch_size=count
    )
    accuracy = deployed(measured(network, test)).accuracy
    adapted.revert()
    return accuracy


def gain(figures: Figures, count: int) -> float:
    """Accuracy with so many images less that unadapted, over the domains."""
    place = COUNTS.index(count)
    return float(np.mean([one.after[place] - one.before for one in figures.domains]))


def gain_in(figures: Figures, which: int, count: int) -> float:
    """The same in one domain."""
    one = figures.domains[which]
    return one.after[COUNTS.index(count)] - one.before


def mean_of(figures: Figures, place: int | None) -> float:
    """Accuracy over the domains, unadapted (None) or at a place of `COUNTS`."""
    return float(
        np.mean([one.before if place is None else one.after[place] for one in figures.domains])
    )


def _row(label: str, place: int | None) -> Row:
    def cell(one: Figures, which: int) -> float:
        domain = one.domains[which]
        return domain.before if place is None else domain.after[place]

    cells = [partial(cell, which=which) for which in range(len(DOMAINS))]
    return Row(label, (*cells, partial(mean_of, place=place)))


def remark(figures: Sequence[Figures]) -> str:
    """How many images it takes, from the intervals of the difference to all 400."""
    most = len(COUNTS) - 1
    lowest = {
        count: interval_of([mean_of(one, place) - mean_of(one, most) for one in figures]).low
        for place, count in enumerate(COUNTS[:-1])
    }
    enough = None
    for count in reversed(lowest):
        if lowest[count] < -NEAR:
            break
        enough = count
    if enough is None:
        return f"No number below {COUNTS[-1]} comes within a point of it for certain."
    return (
        f"How many images it takes: from {enough} on, the accuracy over the four domains is for "
        f"certain (95% interval over seeds) less than {100 * NEAR:.0f} point below that with "
        f"{COUNTS[-1]}."
    )


def plot(figures: Sequence[Figures]) -> Figure:
    """Accuracy over the number of images, by domain."""
    figure, (axes,) = panels(1, "Claim f: test accuracy after recalibration on n images")
    figure.set_size_inches(6.6, 4.2)
    for which, name in enumerate(DOMAINS):
        style = {"color": COLOURS[which], "marker": MARKERS[which]}
        after = np.array([one.domains[which].after for one in figures])
        band(axes, COUNTS, 100 * after, label=name, **style)
        before = 100 * np.mean([one.domains[which].before for one in figures])
        axes.axhline(before, color=COLOURS[which], ls=":", lw=1.2)
    axes.plot([], [], color="black", ls=":", lw=1.2, label="unadapted (dotted)")
    axes.set_xscale("log")
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.minorticks_off()
    axes.set_xlabel("unlabelled images of the domain")
    axes.set_ylabel("accuracy (%)")
    axes.legend(fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 0.12))
    return figure


CLAIM = Claim(
    key="f",
    title="Recalibration recovers accuracy under domain shift",
    says="Wu 2021, section 5, and AdaBN (Li et al. 2016): statistics recomputed on unlabelled "
    "data of the domain where the model is used recover much of what a domain shift costs.",
    recipe="The healthy network of claim d. Four domains of the test images; calibration on n of "
    "the 400 `verify` images of the same domain, without labels, `exact`, 2 random draws each "
    "(one of all 400).",
    seeds=10,
    figures=Figures,
    run=run,
    primary=(
        Difference(
            "f1", "64 images: accuracy over the domains rises", partial(gain, count=64), POINTS
        ),
        Difference(
            "f2", "16 images: accuracy over the domains rises", partial(gain, count=16), POINTS
        ),
    ),
    secondary=(
        *(
            Difference(
                f"f{which + 3}",
                f"64 images: accuracy rises under {name}",
                partial(gain_in, which=which, count=64),
                POINTS,
            )
            for which, name in enumerate(DOMAINS)
        ),
        Difference(
            "f7",
            "2 images are worse than none, over the domains",
            lambda one: -gain(one, 2),
            POINTS,
        ),
        Equivalence(
            "f8",
            "64 images and 400 are equivalent, over the domains",
            lambda one: gain(one, 64) - gain(one, 400),
            POINTS,
            NEAR,
        ),
    ),
    tables=(
        Table(
            "Test accuracy by the number of images",
            "",
            (*((name, PERCENT) for name in DOMAINS), ("mean", PERCENT)),
            (
                _row("unadapted", None),
                *(_row(f"n = {count}", place) for place, count in enumerate(COUNTS)),
            ),
        ),
    ),
    plot=plot,
    remark=remark,
)
