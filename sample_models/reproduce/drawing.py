"""What the plots of the claims share: Okabe and Ito's colours, bands and points of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnaudit.report.plots import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILION
from reproduce.significance import interval_of

COLOURS = (VERMILION, ORANGE, GREEN, BLUE, "#CC79A7", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = GREY
HEIGHT = 3.9
PANEL = 4.4


def panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels side by side."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL * count + 0.4, HEIGHT), layout="constrained")
        axes = list(figure.subplots(1, count, squeeze=False)[0])
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure, axes


def band(axes: Axes, x: Any, values: np.ndarray, label: str, **style: Any) -> None:
    """The mean of values (seeds, points) over x, with its 95% interval as a band."""
    intervals = [interval_of(list(column)) for column in values.T]
    axes.plot(x, [each.mean for each in intervals], label=label, lw=1.5, ms=4, **style)
    axes.fill_between(
        x,
        [each.low for each in intervals],
        [each.high for each in intervals],
        color=style["color"],
        alpha=0.18,
        lw=0,
    )


def categories(
    axes: Axes, labels: Sequence[str], values: Sequence[Sequence[float]], colours: Sequence[str]
) -> None:
    """Each seed's value as a point above its category, and the mean with its 95% interval."""
    for place, (own, colour) in enumerate(zip(values, colours, strict=True)):
        spread = np.linspace(-0.22, 0.02, len(own))
        axes.plot(place + spread, own, ls="", marker="o", ms=3.5, color=colour, alpha=0.45, mew=0)
        mean = interval_of(own)
        axes.errorbar(
            place + 0.2,
            mean.mean,
            yerr=[[mean.mean - mean.low], [mean.high - mean.mean]],
            color=colour,
            marker="D",
            ms=5,
            capsize=3,
            lw=1.5,
        )
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.6, len(labels) - 0.4)


def drawn(figure: Figure, *with_legend: Axes) -> Figure:
    """The figure, with legends where they are wanted."""
    for axes in with_legend:
        axes.legend(fontsize=7.5)
    return figure
