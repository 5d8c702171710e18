"""The plot of a comparison: the output shift by depth, before and after, and its change."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bnaudit.report.changes_words import Mark, mark
from bnaudit.report.judged import printable
from bnaudit.report.plots import BLUE, GREY, MOST_NAMES, STYLE, VERMILION
from bnaudit.results import Changes, Difference, LayerChange

LONGEST_NAME = 28

LINEAR = 3.0
"""The largest figure up to which a linear axis shows what is around a tenth, the threshold."""

KINDS: tuple[tuple[Mark, str, str, str], ...] = (
    ("worse", VERMILION, "^", "worse beyond noise"),
    ("better", BLUE, "v", "better beyond noise"),
    ("", GREY, "o", "within noise"),
)
"""Each kind of change by shape as well as by colour."""


def figure(changes: Changes) -> Figure | None:
    """The change of each layer's output shift with its 95% interval; None without any."""
    layers = [
        (layer, layer.output_shift) for layer in changes.layers if layer.output_shift is not None
    ]
    if not layers:
        return None
    with mpl.rc_context(STYLE):
        width = min(18.0, max(6.0, 0.22 * len(layers) + 2.5))
        drawn = Figure(figsize=(width, 6.4), layout="constrained")
        above, below = drawn.subplots(2, 1, sharex=True, height_ratios=(2, 3))
        _both(above, [change for _, change in layers])
        _change(below, [change for _, change in layers])
        _names(below, [layer for layer, _ in layers])
        for axes in (above, below):
            axes.set_xlim(-0.7, len(layers) - 0.3)
    return drawn


def _both(axes: Axes, changes: Sequence[Difference]) -> None:
    x = np.arange(len(changes))
    before = np.array([change.before for change in changes])
    after = np.array([change.after for change in changes])
    axes.vlines(x, np.minimum(before, after), np.maximum(before, after), color=GREY, lw=1)
    axes.plot(x, before, ls="", marker="o", ms=5, mfc="white", color="black", label="before")
    axes.plot(x, after, ls="", marker="D", ms=4, color="black", label="after")
    _scale(axes, np.concatenate([before, after]))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("output shift\n(standard deviations)")
    axes.set_title("Output shift by depth, before and after", loc="left")
    _legend(axes)


def _change(axes: Axes, changes: Sequence[Difference]) -> None:
    x = np.arange(len(changes))
    value = np.array([change.difference for change in changes])
    low = np.array([_or(change.low, change.difference) for change in changes])
    high = np.array([_or(change.high, change.difference) for change in changes])
    errors = np.clip([value - low, high - value], 0, None)
    kinds = np.array([mark(change) for change in changes])
    axes.axhline(0, color="black", lw=0.8)
    for kind, colour, shape, label in KINDS:
        here = kinds == kind
        if not here.any():
            continue
        axes.errorbar(
            x[here],
            value[here],
            yerr=errors[:, here],
            ls="",
            marker=shape,
            ms=7 if kind else 4,
            mfc=colour if kind else "white",
            color=colour,
            elinewidth=1.2,
            capsize=2.5,
            label=label,
        )
    _scale(axes, value)
    axes.set_ylabel("change, 95% interval\n(standard deviations)")
    axes.set_title("Change of the output shift", loc="left")
    _legend(axes)


def _scale(axes: Axes, values: np.ndarray) -> None:
    """Logarithmic beyond a tenth where one layer would dwarf all others."""
    if float(np.abs(values).max()) > LINEAR:
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.5)


def _legend(axes: Axes) -> None:
    """Beside the title, where it hides no layer."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8, borderaxespad=0.2
    )


def _names(axes: Axes, layers: Sequence[LayerChange]) -> None:
    """All names along the axis; of too many, those that moved and evenly spaced others."""
    step = -(-len(layers) // MOST_NAMES)
    moved = [i for i, layer in enumerate(layers) if mark(layer.output_shift)]
    shown = moved if step > 1 and len(moved) <= MOST_NAMES else []
    others = [i for i in range(0, len(layers), step) if all(abs(i - j) >= step for j in shown)]
    shown = sorted({*shown, *others})
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    names = [_shortened(printable(layers[i].name)) for i in shown]
    axes.set_xticklabels(names, rotation=90, fontsize=7, parse_math=False)


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "…" + name[-(LONGEST_NAME - 1) :]


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
