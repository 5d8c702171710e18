"""The plot of leakage: accuracy by arrangement, and what probes read by depth."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from bnaudit.report.judged import printable
from bnaudit.report.plots import BLUE, GREEN, GREY, MOST_NAMES, ORANGE, STYLE, VERMILION
from bnaudit.results.change import Change
from bnaudit.results.leakage import Leakage, Probed, SizeLeakage
from bnaudit.results.scores import Figure as Scored

LONGEST_NAME = 28

COLOURS = {"class": VERMILION, "source": ORANGE, "order": GREEN}
MARKERS = {"class": "s", "source": "^", "order": "D"}


def figure(found: Leakage) -> Figure | None:
    """Both parts, as far as the result has them; None without either."""
    has_scores = any(_shuffled(found, one) is not None for one in found.sizes)
    probed = found.probed if found.probed is not None and found.probed.layers else None
    if not has_scores and probed is None:
        return None
    with mpl.rc_context(STYLE):
        parts = int(has_scores) + int(probed is not None)
        layers = len(probed.layers) if probed is not None else 0
        width = min(18.0, max(6.5, 0.22 * layers + 2.5))
        drawn = Figure(figsize=(width, 3.4 * parts + 0.6), layout="constrained")
        axes = list(drawn.subplots(parts, 1, squeeze=False)[:, 0])
        if has_scores:
            _arrangements(axes.pop(0), found)
        if probed is not None:
            _probes(axes.pop(0), probed)
    return drawn


def _arrangements(axes: Axes, found: Leakage) -> None:
    """A group of points a size; the deployed network as a line."""
    names = list(dict.fromkeys(one.by for size in found.sizes for one in size.arrangements))
    labels, offsets = ["shuffled", *names], np.linspace(-0.28, 0.28, len(names) + 1)
    if found.deployed.accuracy is not None:
        axes.axhline(
            found.deployed.accuracy.value, color="black", lw=1, ls="--", label="deployed (eval)"
        )
    for label, offset in zip(labels, offsets, strict=True):
        points = [
            (place + offset, _shuffled(found, size) if label == "shuffled" else None, size)
            for place, size in enumerate(found.sizes)
        ]
        drawn = []
        for x, figure_, size in points:
            value = figure_ if label == "shuffled" else _arranged(found, size, label)
            if value is not None:
                drawn.append((x, value))
        if drawn:
            axes.errorbar(
                [x for x, _ in drawn],
                [value.value for _, value in drawn],
                yerr=np.array([_errors(value) for _, value in drawn]).T,
                ls="",
                marker="o" if label == "shuffled" else MARKERS.get(label, "v"),
                ms=6,
                capsize=3,
                color=BLUE if label == "shuffled" else COLOURS.get(label, GREY),
                label=printable(_word(label)),
            )
    axes.set_xticks(range(len(found.sizes)), [str(one.size) for one in found.sizes])
    axes.set_xlim(-0.6, len(found.sizes) - 0.4)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("samples that are normalised together")
    accurate = found.deployed.accuracy is not None
    axes.set_ylabel("accuracy" if accurate else "agreement with\nthe deployed outputs")
    axes.set_title("The same samples in other batches", loc="left")
    _legend(axes)


def _word(label: str) -> str:
    if label == "order":
        return "in order"
    return label if label == "shuffled" else f"by {label}"


def _shuffled(found: Leakage, size: SizeLeakage) -> Scored | None:
    accurate = found.deployed.accuracy is not None
    return size.shuffled.accuracy if accurate else size.shuffled.agreement


def _arranged(found: Leakage, size: SizeLeakage, by: str) -> Scored | None:
    """The arrangement's figure; the interval is that of its difference from shuffled batches."""
    one = size.arrangement(by)
    if one is None:
        return None
    change = one.accuracy if found.deployed.accuracy is not None else one.agreement
    return None if change is None else _after(change)


def _after(change: Change) -> Scored:
    if change.low is None or change.high is None:
        return Scored(change.after)
    return Scored(change.after, change.before + change.low, change.before + change.high)


def _errors(value: Scored) -> tuple[float, float]:
    low = value.value if value.low is None else value.low
    high = value.value if value.high is None else value.high
    return max(0.0, value.value - low), max(0.0, high - value.value)


def _probes(axes: Axes, probed: Probed) -> None:
    x = np.arange(len(probed.layers))
    mates = [one.mates for one in probed.layers]
    axes.plot(
        x,
        [one.moments.after for one in probed.layers],
        color=GREY,
        lw=1,
        marker="x",
        ms=5,
        label="moments tell the class",
    )
    chance = [one.moments.before for one in probed.layers]
    axes.plot(x, chance, color=GREY, lw=1, ls="--", label="chance of that")
    axes.plot(
        x,
        [one.own.value for one in probed.layers],
        color=BLUE,
        lw=1,
        marker="^",
        ms=4.5,
        label="own class of a stranger",
    )
    axes.errorbar(
        x,
        [one.after for one in mates],
        yerr=np.array([_errors(_after(one)) for one in mates]).T,
        color=VERMILION,
        lw=1.6,
        marker="o",
        ms=5,
        capsize=2.5,
        label="mates' class of a stranger",
    )
    axes.plot(
        x,
        [one.before for one in mates],
        color="black",
        ls=":",
        lw=1.2,
        label="that class, shuffled",
    )
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(-0.7, len(x) - 0.3)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("held-out samples,\nread by a linear probe")
    axes.set_title(f"Whose class a layer tells, in batches of {probed.size}", loc="left")
    step = -(-len(x) // MOST_NAMES)
    shown = list(range(0, len(x), step))
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    names = [_shortened(printable(probed.layers[i].name)) for i in shown]
    axes.set_xticklabels(names, rotation=90, fontsize=7, parse_math=False)
    _legend(axes)


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "…" + name[-(LONGEST_NAME - 1) :]


def _legend(axes: Axes) -> None:
    """Outside, where it hides nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, borderaxespad=0.0)
