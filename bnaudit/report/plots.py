"""The plots of an Audit, drawn from it alone, in Okabe and Ito's colour-blind-safe colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bnaudit.report.neutral import neutral
from bnaudit.results import Attribution, Audit, ChannelTable, Estimate, LayerAudit

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
MOST_NAMES = 60
WORST = 4
THRESHOLD = 0.1
"""The output shift at which the verdict calls a layer shifted."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "bnaudit",  # the same Audit gives the same file
}


def figures(audit: Audit) -> Iterator[tuple[str, Figure]]:
    """(file name without suffix, figure) for each plot that the Audit has figures for."""
    layers = [layer for layer in audit.audited if layer.total_shift is not None]
    if not layers:
        return
    with mpl.rc_context(STYLE):
        yield "shift_by_depth", shift_by_depth(layers)
        if any(layer.attributed_shift is not None for layer in layers):
            yield (
                "own_and_inherited_by_depth",
                own_and_inherited_by_depth(layers, audit.attribution),
            )
        if audit.channels is not None:
            yield "channels_by_depth", channels_by_depth(layers, audit.channels)
            yield "worst_layers", worst_layers(layers, audit.channels)
        if any(layer.discrepancy is not None for layer in layers):
            yield "discrepancy_by_depth", discrepancy_by_depth(layers, audit.batch_statistics_size)


def save(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure as `png` or `svg`, without a date, so that it can be compared."""
    with mpl.rc_context(STYLE):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(path, format=kind, dpi=150, metadata=metadata)


def shift_by_depth(layers: list[LayerAudit]) -> Figure:
    """ESM with its 95% interval by depth, its mean and scale parts, and the noise floor."""
    figure, axes = _depth_figure(layers)
    x = np.arange(len(layers))
    total = [layer.total_shift for layer in layers if layer.total_shift is not None]
    value, errors = _with_errors(total)
    axes.plot(
        x,
        _column(layer.mean_part for layer in layers),
        color=ORANGE,
        lw=1,
        marker="^",
        ms=4,
        label="mean part",
    )
    axes.plot(
        x,
        _column(layer.scale_part for layer in layers),
        color=GREEN,
        lw=1,
        marker="s",
        ms=3.5,
        label="scale part",
    )
    axes.errorbar(
        x,
        value,
        yerr=errors,
        color=BLUE,
        lw=1.6,
        marker="o",
        ms=5,
        capsize=2.5,
        label="ESM, 95% interval",
    )
    if all(e.noise_floor is not None for e in total):
        axes.plot(
            x, _column(e.noise_floor for e in total), color=GREY, ls="--", label="noise floor"
        )
    axes.set_ylabel("estimation shift\n(standard deviations)")
    axes.set_title("Estimation shift by depth", loc="left")
    _finish(axes, layers)
    return figure


def own_and_inherited_by_depth(layers: list[LayerAudit], found: Attribution | None) -> Figure:
    """Total shift by depth, and what of it is the layer's own and what it inherits."""
    layers = [layer for layer in layers if layer.attributed_shift is not None]
    figure, axes = _depth_figure(layers)
    x = np.arange(len(layers))
    total = _column(layer.attributed_shift for layer in layers)
    inherited = _column(layer.inherited_shift for layer in layers)
    value, errors = _with_errors([layer.own_shift for layer in layers])
    axes.plot(x, total, color=BLUE, lw=1.6, marker="o", ms=5, label="total")
    axes.plot(x, inherited, color=GREEN, lw=1.2, ls="--", marker="^", ms=4.5, label="inherited")
    axes.errorbar(
        x,
        value,
        yerr=errors,
        color=ORANGE,
        lw=1.2,
        marker="s",
        ms=4,
        capsize=2.5,
        label="own, 95% interval",
    )
    few = set(found.layers_that_matter or ()) if found else set()
    matter = [i for i, layer in enumerate(layers) if layer.name in few]
    if 0 < len(matter) < len(layers):
        axes.plot(
            x[matter],
            value[matter],
            ls="",
            marker="o",
            ms=11,
            mfc="none",
            color="black",
            label="correcting only these is nearly enough",
        )
    axes.axhline(THRESHOLD, color=GREY, ls=":", lw=1.2, label=f"threshold {THRESHOLD:g}")
    axes.set_ylabel("estimation shift\n(standard deviations)")
    axes.set_title("Own and inherited shift by depth", loc="left")
    _finish(axes, layers)
    return figure


def channels_by_depth(layers: list[LayerAudit], channels: ChannelTable) -> Figure:
    """The distribution of the shift over a layer's channels: 5th to 95th percentile and maximum."""
    figure, axes = _depth_figure(layers)
    x = np.arange(len(layers))
    shifts = [_defined(channels.layer(layer.name)["shift"]) for layer in layers]
    bands = np.array([np.percentile(s, [5, 25, 50, 75, 95, 100]) for s in shifts]).T
    bands = np.maximum(bands, 1e-6)
    axes.vlines(x, bands[0], bands[4], color=BLUE, lw=1.2, label="5th to 95th percentile")
    axes.vlines(x, bands[1], bands[3], color=BLUE, lw=5, alpha=0.6, label="middle half")
    axes.plot(x, bands[2], ls="", marker="_", ms=9, color="black", label="median channel")
    axes.plot(x, bands[5], ls="", marker="x", ms=5, color=VERMILION, label="largest channel")
    axes.set_yscale("log")
    axes.set_ylabel("shift of a channel\n(standard deviations)")
    axes.set_title("Distribution of the shift over channels", loc="left")
    _finish(axes, layers)
    return figure


def worst_layers(layers: list[LayerAudit], channels: ChannelTable) -> Figure:
    """Estimated against expected mean and standard deviation of the layers of largest shift."""
    worst = sorted(layers, key=_badness, reverse=True)[:WORST]
    figure = Figure(figsize=(2.6 * len(worst) + 0.6, 5.6), layout="constrained")
    grid = figure.subplots(2, len(worst), squeeze=False)
    for column, layer in enumerate(worst):
        arrays = channels.layer(layer.name)
        pairs = (
            ("mean", arrays["expected_mean"], arrays["estimated_mean"]),
            (
                "std",
                np.sqrt(arrays["expected_var"]),
                np.sqrt(np.clip(arrays["estimated_var"], 0, None)),
            ),
        )
        for row, (what, expected, estimated) in enumerate(pairs):
            axes = grid[row, column]
            both = np.concatenate([expected, estimated])
            span = [float(both.min()), float(both.max())]
            axes.plot(span, span, color=GREY, lw=1, ls="--", label="equal")
            axes.scatter(expected, estimated, s=14, color=BLUE, alpha=0.7, lw=0, label="channel")
            axes.set_xlabel(f"expected {what}")
            if column == 0:
                axes.set_ylabel(f"estimated {what}")
            axes.locator_params(nbins=4)
        assert layer.total_shift is not None
        grid[0, column].set_title(
            f"{_shortened(layer.name, 24)}\nESM {layer.total_shift.value:.3g}",
            fontsize=9,
            parse_math=False,  # a name may have dollars in it
        )
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def discrepancy_by_depth(layers: list[LayerAudit], batch_size: int | None) -> Figure:
    """The squared discrepancy, split into shift (recalibration removes it) and batch noise."""
    layers = [layer for layer in layers if layer.discrepancy is not None]
    figure, axes = _depth_figure(layers)
    x = np.arange(len(layers))
    shift = np.array([layer.total_shift.plain**2 for layer in layers if layer.total_shift])
    noise = np.array([(layer.batch_noise or 0.0) ** 2 for layer in layers])
    axes.bar(x, shift, color=BLUE, label="shift²: recalibration removes it")
    axes.bar(
        x,
        noise,
        bottom=shift,
        color=ORANGE,
        hatch="///",
        edgecolor="white",
        lw=0,
        label="batch noise²: inherent to the batch size",
    )
    axes.set_ylabel("squared discrepancy\n(variances)")
    axes.set_title(
        f"Train/inference discrepancy at mini-batches of {batch_size}, by depth", loc="left"
    )
    _finish(axes, layers)
    return figure


def _depth_figure(layers: list[LayerAudit]) -> tuple[Figure, Axes]:
    width = min(16.0, max(6.0, 0.22 * len(layers) + 2.5))
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    return figure, figure.subplots()


def _finish(axes: Axes, layers: list[LayerAudit]) -> None:
    """Layer names along the axis, all of them or evenly spaced ones, and the legend above."""
    step = -(-len(layers) // MOST_NAMES)
    shown = list(range(0, len(layers), step))
    axes.xaxis.set_major_locator(FixedLocator(shown))
    if step > 1:
        axes.xaxis.set_minor_locator(NullLocator())
    names = [_shortened(layers[i].name, 28) for i in shown]
    axes.set_xticklabels(names, rotation=90, fontsize=7, parse_math=False)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.margins(y=0.08)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
    bottom, top = axes.get_ylim()
    # room for the legend above the highest mark
    axes.set_ylim(bottom, top * 1.25 if axes.get_yscale() == "linear" else top * 4)


def _badness(layer: LayerAudit) -> float:
    estimate = layer.output_shift or layer.total_shift
    return estimate.value if estimate else 0.0


def _with_errors(estimates: Sequence[Estimate | None]) -> tuple[np.ndarray, np.ndarray]:
    """Values (L,) and the lengths of their error bars (2, L), 0 where an interval is withheld."""
    value = _column(e.value if e else None for e in estimates)
    low = _column((e.value if e.low is None else e.low) if e else None for e in estimates)
    high = _column((e.value if e.high is None else e.high) if e else None for e in estimates)
    return value, np.clip([value - low, high - value], 0, None)


def _column(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def _defined(shift: np.ndarray) -> np.ndarray:
    return np.asarray(shift[~np.isnan(shift)])


def _shortened(name: str, most: int) -> str:
    name = neutral(name)
    return name if len(name) <= most else "…" + name[-(most - 1) :]
