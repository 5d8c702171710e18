"""What got worse than in the baseline, beyond a tolerance and the noise of both measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bnaudit.config import Tolerance
from bnaudit.findings.gate.counted import THE_DATA
from bnaudit.findings.gate.ignores import Ignores
from bnaudit.findings.phrases import named, number, plural, some_of
from bnaudit.results import Changes, Check, Difference, LayerChange, Uncompared

TOO_NOISY = 3.0
"""Times the tolerance: a comparison with more noise hides what the tolerance is there for.

The noise is half the width of the interval that holds for all figures at once: what passes got
worse by hardly more than 4 tolerances, one that is tolerated and three of noise. It is the noise
that is judged, not the figure, so that an unchanged model is inconclusive for the number of its
samples, and not by chance.
"""

TOO_NOISY_SHARE = 10.0
"""The same for shares of samples, which are noisy by nature: 100 samples tell them to 5 to 10
points. What the gate is there for are the statistics; `min_accuracy` asks for an accuracy."""


@dataclass(frozen=True)
class _Judged:
    """A difference held against its tolerance, all turned so that more is worse."""

    name: str
    change: Difference
    rise: float
    surely: float | None
    noise: float | None
    tolerance: float
    most_noise: float

    @property
    def worse(self) -> bool:
        return self.surely is not None and self.surely > self.tolerance

    @property
    def open(self) -> bool:
        return not self.worse and (
            self.noise is None or self.noise > self.most_noise * self.tolerance
        )

    @property
    def unchanged(self) -> bool:
        """The same weights on the same samples."""
        return self.rise == 0 and self.noise == 0


def regressions(changes: Changes, tolerance: Tolerance, ignores: Ignores) -> Iterator[Check]:
    """One check of all layers, and one for each figure of the network that the baseline has."""
    yield _of_layers(changes, tolerance, ignores)
    for network in changes.network:
        figure = _FIGURES.get(network.figure)
        if figure is not None:
            judged = figure.judged(network.figure, network.change, tolerance)
            yield _of_network(figure, judged, changes)
    for missing in changes.uncompared:
        yield _uncompared(missing)


def worse_layers(changes: Changes, tolerance: Tolerance) -> list[str]:
    """The layers whose output shift got worse, also where that is ignored."""
    return [layer.name for layer, judged in _layers(changes, tolerance) if judged.worse]


def _layers(changes: Changes, tolerance: Tolerance) -> list[tuple[LayerChange, _Judged]]:
    return [
        (layer, _shift(layer.name, layer.output_shift, tolerance.layer_esm, tolerance))
        for layer in changes.layers
        if layer.output_shift is not None
    ]


def _of_layers(changes: Changes, tolerance: Tolerance, ignores: Ignores) -> Check:
    judged = [found for _, found in _layers(changes, tolerance)]
    wrong = [x for x in judged if x.worse or x.open]
    ignored = [x.name for x in wrong if ignores.layer(x.name, "layer_esm") is not None]
    worse = [x for x in wrong if x.worse and x.name not in ignored]
    hidden = [x for x in wrong if x.open and x.name not in ignored]
    check = Check(
        kind="regression",
        name="layer_esm",
        title="output shift of each layer against the baseline",
        outcome="inconclusive",
        sentence="No layer stands on both sides with figures: there is nothing to compare.",
        remedy=WRITE_ANEW,
        limit=tolerance.layer_esm,
    )
    if not judged:
        return check
    check = replace(check, outcome="pass", remedy=None)
    left_out = f"; the settings leave out {some_of(ignored)}" if ignored else ""
    of = plural(len(judged), "layer")
    if worse:
        most = max(worse, key=lambda x: x.rise)
        sentence = (
            f"The output shift of {len(worse)} of {of} got worse than in the baseline: "
            f"{_figure(most, number)} in {named(most.name)}, where {number(most.tolerance)} is "
            f"tolerated{left_out}."
        )
        the_data = changes.same_weights and not changes.paired
        remedy = THE_DATA if the_data else ANOTHER_STATE
        names = tuple(x.name for x in sorted(worse, key=lambda x: -x.rise))
        return replace(
            check,
            outcome="fail",
            sentence=sentence,
            layers=names,
            remedy=remedy,
            value=most.rise,
            limit=most.tolerance,
        )
    if hidden:
        return _inconclusive(check, hidden, changes)
    if all(x.unchanged for x in judged):
        return replace(check, sentence=f"None of {of} changed.", value=0.0)
    most = max(judged, key=lambda x: x.rise)
    sentence = f"The largest change of {of} is {_figure(most, number)} in {named(most.name)}"
    return replace(check, sentence=f"{sentence}{left_out}.", value=most.rise, limit=most.tolerance)


def _inconclusive(check: Check, hidden: Sequence[_Judged], changes: Changes) -> Check:
    names = tuple(x.name for x in hidden)
    samples = f"{changes.before.samples:,} and {changes.after.samples:,} samples"
    sentence = (
        f"{samples} are too few to tell whether {some_of(names)} got worse than in the baseline: "
        f"the noise of the comparison is more than {TOO_NOISY:g} times what is tolerated."
    )
    return replace(
        check, outcome="inconclusive", sentence=sentence, layers=names, remedy=_more(changes)
    )


def _uncompared(missing: Uncompared) -> Check:
    return Check(
        kind="regression",
        name=missing.figure,
        title=f"{_FIGURES[missing.figure].title} against the baseline",
        outcome="inconclusive",
        sentence=f"The baseline has a figure, and there is none to compare: {missing.reason}.",
        remedy=WRITE_ANEW,
    )


WRITE_ANEW = "Measure as the baseline was measured, or write it anew with --write-baseline."

ANOTHER_STATE = (
    "Recalibrate the checkpoint where its weights or its data changed on purpose, and accept the "
    "new state with --write-baseline; else look for what changed."
)
_NO_NOISE = (
    "Where an older version wrote the baseline, which kept less, write it anew with "
    "--write-baseline; else measure both on more samples."
)


def _more(changes: Changes) -> str:
    if changes.paired:
        return "Measure both on more samples."
    return (
        "Measure both on more samples, or on the same ones (same --data, --samples and --seed, or "
        "--base-checkpoint): then what they have in common cancels."
    )


@dataclass(frozen=True)
class _Figure:
    """A figure of the network: how it is called, shown, and which way is worse."""

    title: str
    judged: Callable[[str, Difference, Tolerance], _Judged]
    shown: Callable[[float], str]


def _of_network(figure: _Figure, judged: _Judged, changes: Changes) -> Check:
    what = _figure(judged, figure.shown)
    tolerated = f"{figure.shown(judged.tolerance)} is tolerated"
    check = Check(
        kind="regression",
        name=judged.name,
        title=f"{figure.title} against the baseline",
        outcome="pass",
        sentence=f"The {figure.title} is {figure.shown(judged.change.after)}, as before."
        if judged.unchanged
        else f"The {figure.title} went {what}.",
        value=judged.rise,
        limit=judged.tolerance,
    )
    if judged.worse:
        sentence = f"The {figure.title} got worse: {what}, where {tolerated}."
        return replace(check, outcome="fail", sentence=sentence)
    if judged.surely is None:
        sentence = f"The {figure.title} went {what}: how noisy that is is not known."
        return replace(check, outcome="inconclusive", sentence=sentence, remedy=_NO_NOISE)
    if judged.open:
        sentence = (
            f"The {figure.title} went {what}: too noisy to tell whether it got worse by more than "
            f"is tolerated, {figure.shown(judged.tolerance)}."
        )
        return replace(check, outcome="inconclusive", sentence=sentence, remedy=_more(changes))
    if judged.rise > judged.tolerance and judged.surely > 0:
        return replace(
            check,
            sentence=(
                f"The {figure.title} went {what}: worse beyond noise, but not for certain by more "
                f"than is tolerated, {figure.shown(judged.tolerance)}."
            ),
        )
    return check


def _figure(judged: _Judged, shown: Callable[[float], str]) -> str:
    change = judged.change
    text = f"{shown(change.before)} -> {shown(change.after)}"
    if change.low is None or change.high is None:
        return text
    return f"{text} (95% interval of the difference {shown(change.low)} to {shown(change.high)})"


def _shift(name: str, change: Difference, absolute: float, tolerance: Tolerance) -> _Judged:
    tolerated = max(absolute, tolerance.relative * change.before)
    return _judged(name, change, 1, tolerated, TOO_NOISY)


def _judged(
    name: str, change: Difference, sign: int, tolerance: float, most_noise: float
) -> _Judged:
    """`sign`: 1 where more is worse, −1 where less is."""
    limit = change.surely_low if sign > 0 else change.surely_high
    rise = sign * change.difference
    surely = None if limit is None else sign * limit
    noise = None
    if change.surely_low is not None and change.surely_high is not None:
        noise = (change.surely_high - change.surely_low) / 2
    return _Judged(name, change, rise, surely, noise, tolerance, most_noise)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


_FIGURES: dict[str, _Figure] = {
    "total_esm": _Figure(
        "output shift over all layers",
        lambda name, change, t: _shift(name, change, t.total_esm, t),
        number,
    ),
    "accuracy": _Figure(
        "top-1 accuracy",
        lambda name, change, t: _judged(name, change, -1, t.accuracy, TOO_NOISY_SHARE),
        _percent,
    ),
    "disagreement": _Figure(
        "share of samples whose class differs under mini-batch statistics",
        lambda name, change, t: _judged(name, change, 1, t.disagreement, TOO_NOISY_SHARE),
        _percent,
    ),
}
"""The figures of `Changes.network` that can regress."""
