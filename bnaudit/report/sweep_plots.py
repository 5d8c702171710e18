"""The plots of a sweep: accuracy, loss and shift over the value, and the shift layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Drawn
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullLocator,
    PercentFormatter,
)

from bnaudit.report.judged import printable
from bnaudit.report.numbers import loss, percent
from bnaudit.report.plots import BLUE, GREEN, GREY, MOST_NAMES, ORANGE, STYLE, VERMILION
from bnaudit.report.sweep_words import ROLES, TITLES, WORDS, value_text
from bnaudit.results import NOISE_ENOUGH
from bnaudit.results.scores import Figure, Scores
from bnaudit.results.sweep import Role, Sweep, SweepPoint

COLOURS: dict[Role, str] = {"held-out": BLUE, "train": GREEN}
MARKERS: dict[Role, str] = {"held-out": "o", "train": "s"}

LONGEST_NAME = 28

SMALLEST = 1e-3
"""A shift below this is shown as this: it is nothing."""

FAR = 1.5
"""Heights of the panel beyond which a reference line is left out, and named instead."""

Read = Callable[[Scores], Figure | None]
Write = Callable[[float | None], str]


def figures(sweep: Sweep) -> Iterator[tuple[str, Drawn]]:
    """(what the file's name ends in, figure) for each plot that there are figures for."""
    with mpl.rc_context(STYLE):
        panels = _panels(sweep)
        if panels:
            yield "", _over_values(sweep, panels)
        if any(value is not None for point in sweep.points for value in point.by_layer):
            yield "_layers", _by_layer(sweep)


Panel = Callable[[Axes, Sweep], None]


def _panels(sweep: Sweep) -> list[Panel]:
    points = sweep.points
    panels: list[Panel] = []
    if any(point.scores.accuracy for point in points):
        panels.append(_accuracy)
    elif any(point.scores.agreement for point in points):
        panels.append(_agreement)
    if any(point.scores.loss for point in points):
        panels.append(_loss)
    elif any(point.scores.kl for point in points):
        panels.append(_kl)
    if any(point.shift for point in points):
        panels.append(_shift)
    return panels


def _over_values(sweep: Sweep, panels: Sequence[Panel]) -> Drawn:
    figure = Drawn(figsize=(3.9 * len(panels) + 0.6, 4.4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        panel(axes, sweep)
        _value_axis(axes, sweep)
    figure.suptitle(TITLES[sweep.kind], x=0.01, ha="left", fontsize=11)
    marks: dict[str, Artist] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(marks.values()), list(marks), loc="outside lower center", ncols=3, fontsize=8
    )
    return figure


def _accuracy(axes: Axes, sweep: Sweep) -> None:
    _scores(axes, sweep, lambda scores: scores.accuracy, percent)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("top-1 accuracy")


def _agreement(axes: Axes, sweep: Sweep) -> None:
    _lines(axes, sweep, lambda scores: scores.agreement)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("agreement with the estimates")


def _loss(axes: Axes, sweep: Sweep) -> None:
    _scores(axes, sweep, lambda scores: scores.loss, loss)
    values = [p.scores.loss.value for p in sweep.points if p.scores.loss is not None]
    _logarithmic(axes, values)
    axes.set_ylabel("loss (nats)")


def _kl(axes: Axes, sweep: Sweep) -> None:
    _lines(axes, sweep, lambda scores: scores.kl)
    axes.set_ylabel("KL from the estimates (nats)")


def _lines(axes: Axes, sweep: Sweep, read: Read) -> None:
    """A line with its 95% band for each set of data."""
    for data in sweep.data:
        known = [p for p in sweep.of(data.role) if read(p.scores) is not None]
        _line(axes, known, [_read(read, point) for point in known], data.role, ROLES[data.role])


def _scores(axes: Axes, sweep: Sweep, read: Read, write: Write) -> None:
    """The same, with what the network does without the values.

    A reference that lies so far off that the line would look flat is named at the edge.
    """
    _lines(axes, sweep, read)
    bottom, top = axes.get_ylim()
    for data in sweep.data:
        several = len(sweep.data) > 1
        for scores, style, name, colour in (
            (data.estimates, ":", "estimates", VERMILION),
            (data.exact, "--", WORDS[sweep.kind].exact, GREY),
        ):
            figure = read(scores) if scores is not None else None
            if figure is None:
                continue
            value, label = figure.value, name + (f", {ROLES[data.role]}" if several else "")
            shade = COLOURS[data.role] if several else colour
            if bottom - FAR * (top - bottom) <= value <= top + FAR * (top - bottom):
                axes.axhline(value, color=shade, ls=style, lw=1.2, label=label)
            else:
                _at_edge(axes, f"{label}: {write(value)}", shade, above=value > top)


def _at_edge(axes: Axes, text: str, colour: str, *, above: bool) -> None:
    arrow, y, side = ("↑", 0.99, "top") if above else ("↓", 0.01, "bottom")
    others = sum(t.get_verticalalignment() == side for t in axes.texts)
    y += (-0.06 if above else 0.06) * others
    axes.text(
        0.98,
        y,
        f"{text} {arrow}",
        transform=axes.transAxes,
        ha="right",
        va=side,
        color=colour,
        fontsize=8,
    )


def _read(read: Read, point: SweepPoint) -> Figure:
    figure = read(point.scores)
    assert figure is not None
    return figure


def _line(
    axes: Axes, points: Sequence[SweepPoint], values: Sequence[Figure], role: Role, label: str
) -> None:
    x = np.array([point.value for point in points])
    y = np.array([figure.value for figure in values])
    low = np.array([figure.value if figure.low is None else figure.low for figure in values])
    high = np.array([figure.value if figure.high is None else figure.high for figure in values])
    colour = COLOURS[role]
    if bool((high > low).any()):
        axes.fill_between(
            x, low, high, color=colour, alpha=0.18, lw=0, label=f"95% interval, {label}"
        )
    axes.plot(x, y, color=colour, lw=1.6, marker=MARKERS[role], ms=4.5, label=label)


def _shift(axes: Axes, sweep: Sweep) -> None:
    for data in sweep.data:
        known = [p for p in sweep.of(data.role) if p.shift is not None]
        shifts = [point.shift for point in known if point.shift is not None]
        _line(axes, known, shifts, data.role, ROLES[data.role])
    if sweep.kind == "samples":
        axes.axhline(
            NOISE_ENOUGH, color=ORANGE, ls="-.", lw=1.2, label=f"{NOISE_ENOUGH:g}: small enough"
        )
    values = [p.shift.value for p in sweep.points if p.shift is not None]
    if not _logarithmic(axes, values):
        axes.set_ylim(bottom=0)
    axes.set_ylabel(WORDS[sweep.kind].shift_axis)


def _logarithmic(axes: Axes, values: Sequence[float]) -> bool:
    """Whether the values span more than a factor of 10; the axis is logarithmic then."""
    if min(values) <= 0 or max(values) <= 10 * min(values):
        return False
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    return True


def _value_axis(axes: Axes, sweep: Sweep) -> None:
    """Logarithmic where the values span more than a factor of 5, with a tick at each value."""
    values = list(sweep.values)
    positive = [value for value in values if value > 0]
    if len(positive) > 1 and max(positive) > 5 * min(positive):
        if values[0] == 0:
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.6)
            axes.set_xlim(-0.25 * min(positive), 1.25 * max(positive))
        else:
            axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: value_text(sweep.kind, x)))
    axes.tick_params(axis="x", labelrotation=90 if len(values) > 6 else 0, labelsize=8)
    axes.set_xlabel(WORDS[sweep.kind].axis)
    if sweep.current in values and sweep.kind != "example-weight":
        axes.axvline(
            float(sweep.current or 0), color=GREY, lw=6, alpha=0.25, label="in force now", zorder=0
        )


def _by_layer(sweep: Sweep) -> Drawn:
    """A heat map: layers in call order, values along the other axis; one for each set of data."""
    roles = [data.role for data in sweep.data if any(p.by_layer for p in sweep.of(data.role))]
    values = sweep.values
    height = min(14.0, max(3.2, 0.2 * len(sweep.layers) + 1.8))
    width = len(roles) * (0.55 * len(values) + 0.6) + 3.6
    figure = Drawn(figsize=(max(6.0, width), height), layout="constrained")
    grid = figure.subplots(1, len(roles), squeeze=False, sharey=True)[0]
    shifts = {role: _matrix(sweep, role) for role in roles}
    known = np.concatenate([found[np.isfinite(found)] for found in shifts.values()])
    high = max(float(known.max(initial=0.0)), 2 * SMALLEST)
    low = max(float(known.min(initial=high / 2)), SMALLEST, high / 1e3)
    scale = LogNorm(vmin=low, vmax=high)
    image = None
    for axes, role in zip(grid, roles, strict=True):
        axes.grid(visible=False)
        shown = np.clip(shifts[role], scale.vmin, None)
        image = axes.imshow(shown, aspect="auto", norm=scale, cmap="cividis")
        axes.set_xticks(range(len(values)), [value_text(sweep.kind, v) for v in values])
        axes.tick_params(axis="x", labelrotation=90 if len(values) > 6 else 0, labelsize=8)
        axes.set_xlabel(WORDS[sweep.kind].axis)
        axes.set_title(ROLES[role], loc="left", fontsize=9)
    step = -(-len(sweep.layers) // MOST_NAMES)
    names = [_shortened(printable(name)) for name in sweep.layers]
    grid[0].yaxis.set_major_locator(FixedLocator(range(0, len(names), step)))
    grid[0].set_yticklabels(names[::step], fontsize=7, parse_math=False)
    if image is not None:
        label = WORDS[sweep.kind].shift_axis.replace(", RMS", "")
        figure.colorbar(image, ax=list(grid), label=label, shrink=0.9)
    figure.suptitle(f"{TITLES[sweep.kind]}, by layer", x=0.01, ha="left", fontsize=11)
    return figure


def _matrix(sweep: Sweep, role: Role) -> np.ndarray:
    """The shift of each layer at each value, (L, V); NaN where there is none."""
    matrix = np.full((len(sweep.layers), len(sweep.values)), np.nan)
    for point in sweep.of(role):
        column = sweep.values.index(point.value)
        for row, value in enumerate(point.by_layer):
            matrix[row, column] = np.nan if value is None else value
    return matrix


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "…" + name[-(LONGEST_NAME - 1) :]
