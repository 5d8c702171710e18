"""The plots of a comparison of domains: the matrix, and how far apart they are by depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bnaudit.report.domains import SHIFT, Measure, shown_measures
from bnaudit.report.judged import printable
from bnaudit.report.plots import (
    BLUE,
    GREEN,
    GREY,
    MOST_NAMES,
    ORANGE,
    STYLE,
    THRESHOLD,
    VERMILION,
)
from bnaudit.results.domains import Domains

PURPLE, SKY = "#CC79A7", "#56B4E9"

PAIRS = (
    (BLUE, "o", "-"),
    (VERMILION, "s", "--"),
    (GREEN, "^", "-."),
    (ORANGE, "D", ":"),
    (PURPLE, "v", "-"),
    (SKY, "P", "--"),
)
"""A pair of domains by colour, shape and line: the farthest apart; of more, only the largest and
the median over all."""

MOST_WRITTEN = 14
"""Beyond so many rows or columns figures in cells cannot be read."""

LONGEST = 18


def figures(result: Domains) -> Iterator[tuple[str, Figure]]:
    """(file name without suffix, figure) of each plot that there are figures for."""
    measures = shown_measures(result)
    if measures:
        with mpl.rc_context(STYLE | {"axes.grid": False}):
            yield "domains", _matrix(result, measures)
    if result.layers and result.pairs:
        with mpl.rc_context(STYLE):
            yield "domains_by_layer", _by_layer(result)


def _matrix(result: Domains, measures: Sequence[Measure]) -> Figure:
    """The first measure, and the shift beside it: statistics down, data across."""
    first = measures[0]
    shown = [first] if first is SHIFT or SHIFT not in measures else [first, SHIFT]
    rows, columns = len(result.statistics), len(result.names)
    width = min(18.0, (1.9 + max(2.6, 0.62 * columns)) * len(shown) + 0.6)
    drawn = Figure(figsize=(width, min(14.0, 1.7 + 0.36 * rows)), layout="constrained")
    for axes, measure in zip(np.ravel(drawn.subplots(1, len(shown))), shown, strict=True):
        _heat(axes, result, measure)
    return drawn


def _heat(axes: Axes, result: Domains, measure: Measure) -> None:
    values = np.array(
        [
            [_or_nan(measure.read(result.cell(whose, name))) for name in result.names]
            for whose in result.statistics
        ]
    )
    # Dark is bad in every map, whichever way the figure goes; where all are alike, nothing is.
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low == high:
        low, high = (low - 1, high) if measure.more else (low, high + 1)
    colours = "cividis" if measure.more else "cividis_r"
    axes.imshow(values, aspect="auto", cmap=colours, vmin=low, vmax=high)
    axes.set_xticks(range(len(result.names)), [_cut(name) for name in result.names])
    if len(result.names) > 3 or any(len(name) > 8 for name in result.names):
        axes.tick_params(axis="x", rotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(result.statistics)), [_cut(one) for one in result.statistics])
    axes.set_xlabel("data (outlined: under its own statistics)")
    axes.set_ylabel("statistics")
    axes.set_title(measure.name, loc="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if max(values.shape) <= MOST_WRITTEN:
        _write(axes, values, measure, low, high)
    for row, whose in enumerate(result.statistics):
        if whose in result.names:
            column = result.names.index(whose)
            axes.add_patch(
                mpl.patches.Rectangle(
                    (column - 0.47, row - 0.46), 0.94, 0.92, fill=False, ec=VERMILION, lw=1.6
                )
            )


def _write(axes: Axes, values: np.ndarray, measure: Measure, low: float, high: float) -> None:
    """The figure in each cell, light on dark and dark on light."""
    for (row, column), value in np.ndenumerate(values):
        share = (value - low) / (high - low)
        light = share if measure.more else 1 - share
        axes.text(
            column,
            row,
            measure.write(None if np.isnan(value) else float(value)),
            ha="center",
            va="center",
            fontsize=8,
            color="black" if not light < 0.55 else "white",
            parse_math=False,
        )


def _by_layer(result: Domains) -> Figure:
    """The distance of each pair of domains in each layer, with intervals and the noise floor."""
    layers = result.layers
    width = min(18.0, max(6.0, 0.24 * len(layers) + 2.5))
    drawn = Figure(figsize=(width, 4.2), layout="constrained")
    axes = drawn.subplots()
    x = np.arange(len(layers))
    value = _column(result, "value")
    if len(result.pairs) <= len(PAIRS):
        for number, (pair, (colour, shape, line)) in enumerate(
            zip(result.pairs, PAIRS, strict=False)
        ):
            low, high = _column(result, "low")[number], _column(result, "high")[number]
            errors = np.clip([value[number] - low, high - value[number]], 0, None)
            axes.errorbar(
                x,
                value[number],
                yerr=np.nan_to_num(errors),
                color=colour,
                marker=shape,
                ls=line,
                ms=4,
                lw=1.2,
                capsize=2,
                label=f"{_cut(pair[0])}, {_cut(pair[1])}",
            )
    else:
        axes.fill_between(
            x,
            np.nanmin(value, 0),
            np.nanmax(value, 0),
            color=BLUE,
            alpha=0.2,
            label=f"least and largest of {len(result.pairs)} pairs",
        )
        axes.plot(x, np.nanmedian(value, 0), color=BLUE, marker="o", ms=4, label="median pair")
    floor = np.nanmax(np.nan_to_num(_column(result, "noise_floor")), 0)
    axes.plot(x, floor, color=GREY, ls="--", label="noise floor (largest)")
    axes.axhline(THRESHOLD, color="black", lw=0.8, ls=":", label=f"what counts: {THRESHOLD:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.set_ylabel("distance of the statistics\n(standard deviations)")
    axes.set_title("Distance between domains by depth, 95% interval", loc="left")
    axes.legend(fontsize=8, loc="upper right")
    step = -(-len(layers) // MOST_NAMES)
    axes.xaxis.set_major_locator(FixedLocator(list(range(0, len(layers), step))))
    axes.xaxis.set_minor_locator(NullLocator())
    names = [_cut(layer.name) for layer in layers[::step]]
    axes.set_xticklabels(names, rotation=90, fontsize=7, parse_math=False)
    return drawn


def _column(result: Domains, field: str) -> np.ndarray:
    """A figure of every estimate, (pairs, layers)."""
    return np.array(
        [
            [_or_nan(getattr(layer.distances[i], field, None)) for layer in result.layers]
            for i in range(len(result.pairs))
        ]
    )


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _cut(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= LONGEST else "…" + shown[-(LONGEST - 1) :]
