"""At which layers normalised activations carry the class of batch mates: linear probes.

The probe of a layer learns the class from normalised activations in batches of one class, where a
sample and its mates have the same one, so that it may read it from either. Then it is asked about
strangers: held-out samples among mates of another class. Where it says the mates' class, the
information came from them, through the batch's moments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.segments import normalised, segment_moments
from bnaudit.results.change import Change
from bnaudit.results.leakage import Probed, ProbedLayer
from bnaudit.results.scores import Figure
from bnaudit.stats.arranged import Floats, clustered_share, turned
from bnaudit.stats.arrangements import Ints, of_one_group, shuffled, with_strangers
from bnaudit.stats.paired import share
from bnaudit.stats.probe import folds_of, probed_size, projection, read_classes
from bnaudit.verbs.leakage_pass import Runner

FOLDS = 2
LEAST_SIZE = 4
"""Of a batch of one class with a stranger in it."""

STRANGERS_IN = 8
"""One sample of so many in a batch is a stranger."""


def strangers_in(size: int) -> int:
    """How many samples of a batch are strangers."""
    return max(1, size // STRANGERS_IN)


@dataclass
class ProbedSizes:
    """Handler for `intercepted`: mini-batch statistics at `size`, and what layers look like then.

    `activations`: of each layer, (samples, F) for every forward: means over positions of the
    positive and the negative parts of the normalised activation, before γ and β. `moments`:
    (mini-batches, F): mean and log variance of the channels. Only the first call of a layer in a
    forward counts. Both are projected where they are many.
    """

    size: int
    seed: int
    activations: dict[BNLayer, list[Floats]] = field(default_factory=dict)
    moments: dict[BNLayer, list[Floats]] = field(default_factory=dict)
    _samples: int = 0
    _called: set[str] = field(default_factory=set)

    def start(self, samples: int) -> None:
        """The next forward has so many samples."""
        self._samples = samples
        self._called.clear()

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run the layer with every mini-batch's own moments."""
        if x.numel() == 0:
            return forward(x)
        values = channels_first(layer, x)
        rows, segments = values.shape[0], self._samples // self.size
        if rows % self._samples or values.numel() // (values.shape[1] * segments) < 2:
            return forward(x)
        mean, var = segment_moments(values, segments)
        if layer.name not in self._called:
            self._called.add(layer.name)
            self._look(layer, values, mean, var)
        return normalised(layer, forward, x, mean, var)

    def _look(self, layer: BNLayer, values: Tensor, mean: Tensor, var: Tensor) -> None:
        eps = layer.eps or 0.0
        with torch.autocast(values.device.type, enabled=False):
            cut = values.flatten(2) if values.dim() > 2 else values[..., None]
            cut = cut.unflatten(0, (len(mean), -1)).to(mean.dtype)
            white = (cut - mean[:, None, :, None]) * (var + eps).rsqrt()[:, None, :, None]
            white = white.flatten(0, 1)
            parts = torch.cat([white.clamp(min=0).mean(2), white.clamp(max=0).mean(2)], 1)
            by_sample = parts.unflatten(0, (self._samples, -1)).mean(1)
            moments = torch.cat([mean, (var + max(eps, 1e-12)).log()], 1)
        self._keep(self.activations, layer, by_sample)
        self._keep(self.moments, layer, moments)

    def _keep(self, kept: dict[BNLayer, list[Floats]], layer: BNLayer, figures: Tensor) -> None:
        wide = figures.cpu().double().numpy()
        onto = projection(wide.shape[1], self.seed)
        kept.setdefault(layer, []).append(wide if onto is None else wide @ onto)


@dataclass
class _Fold:
    """What was seen of the samples of one fold: of each row its class, batch and so on.

    `pure`: in batches of one class; `mixed`: with strangers; `alike`: shuffled, with the sample of
    each row in `placed`.
    """

    pure: list[ProbedSizes] = field(default_factory=list)
    classes: list[Ints] = field(default_factory=list)
    mixed: list[ProbedSizes] = field(default_factory=list)
    places: list[Ints] = field(default_factory=list)
    samples: list[Ints] = field(default_factory=list)
    own: list[Ints] = field(default_factory=list)
    mates: list[Ints] = field(default_factory=list)
    batches: list[Ints] = field(default_factory=list)
    alike: list[ProbedSizes] = field(default_factory=list)
    placed: list[Ints] = field(default_factory=list)


def probe_layers(
    runner: Runner, size: int, draws: int, seed: int, progress: Callable[[int], None]
) -> Probed | None:
    """Probe every layer that normalises by mini-batches; None where classes are too small.

    In two folds of samples: the probe that reads a fold's strangers has learned from the others'
    batches. `progress` is called for each layer. Inside `conditions.entered(model)`.
    """
    labels = runner.pool.labels
    fitting = None if labels is None else probed_size(labels, size, FOLDS, LEAST_SIZE)
    if labels is None or fitting is None:
        return None
    rng = np.random.default_rng(seed)
    fold_of = folds_of(labels, FOLDS, rng)
    folds = [
        _seen(runner, np.flatnonzero(fold_of == number), labels, fitting, draws, seed, rng)
        for number in range(FOLDS)
    ]
    layers = []
    for order, layer in enumerate(folds[0].pure[0].activations):
        if all(layer in draw.activations for fold in folds for draw in fold.pure + fold.mixed):
            layers.append(_probed(layer, order, folds, fitting, len(labels), seed))
        progress(1)
    return Probed(
        size=fitting,
        classes=len(np.unique(np.concatenate(folds[0].classes))),
        batches=sum(len(fold.classes[0]) // fitting for fold in folds),
        strangers=sum(len(places) for fold in folds for places in fold.places),
        folds=FOLDS,
        layers=tuple(layers),
    )


def _seen(
    runner: Runner,
    members: Ints,
    labels: Ints,
    size: int,
    draws: int,
    seed: int,
    rng: np.random.Generator,
) -> _Fold:
    fold = _Fold()
    for draw in range(draws):
        batches = members[of_one_group(labels[members], size, rng)]
        handler = ProbedSizes(size, seed)
        runner.watched(batches, handler)
        fold.pure.append(handler)
        fold.classes.append(labels[batches].reshape(-1))
        mixed, strange = with_strangers(batches, labels, strangers_in(size), rng)
        handler = ProbedSizes(size, seed)
        runner.watched(mixed, handler)
        fold.mixed.append(handler)
        places = np.flatnonzero(strange.reshape(-1))
        fold.places.append(places)
        fold.samples.append(mixed.reshape(-1)[places])
        fold.own.append(labels[mixed.reshape(-1)[places]])
        fold.mates.append(labels[batches[places // size, -1]])
        fold.batches.append(draw * len(batches) + places // size)
        dealt = members[shuffled(len(members), size, rng)]
        handler = ProbedSizes(size, seed)
        runner.watched(dealt, handler)
        fold.alike.append(handler)
        fold.placed.append(dealt.reshape(-1))
    return fold


def _probed(
    layer: BNLayer, order: int, folds: list[_Fold], size: int, samples: int, seed: int
) -> ProbedLayer:
    said, moments_said, moments_true = [], [], []
    alike = np.full((len(folds[0].alike), samples), -1)
    for number, fold in enumerate(folds):
        others = [other for i, other in enumerate(folds) if i != number]
        taught = np.concatenate([c for other in others for c in other.classes])
        x = np.concatenate([_rows(d.activations[layer]) for o in others for d in o.pure])
        asked = np.concatenate(
            [
                _rows(draw.activations[layer])[places]
                for draw, places in zip(fold.mixed, fold.places, strict=True)
            ]
        )
        dealt = [_rows(draw.activations[layer]) for draw in fold.alike]
        answers = read_classes(x, taught, np.concatenate([asked, *dealt]), seed)
        said.append(answers[: len(asked)])
        alike_said = np.split(answers[len(asked) :], len(dealt))
        for draw_said, placed, one in zip(alike, fold.placed, alike_said, strict=True):
            draw_said[placed] = one
        m = np.concatenate([_rows(d.moments[layer]) for o in others for d in o.pure])
        held = np.concatenate([_rows(draw.moments[layer]) for draw in fold.pure])
        true = np.concatenate([c[::size] for c in fold.classes])
        read = read_classes(m, taught[::size], held, seed)
        moments_said.append(read)
        moments_true.append(true)
    batches = sum(len(fold.classes[0]) // size for fold in folds)
    moments = _moments(np.concatenate(moments_said), np.concatenate(moments_true), batches)
    most = 1 + max(int(one.max(initial=0)) for fold in folds for one in fold.batches)
    mates, own, p_value = strangers_read(
        alike,
        np.concatenate(said),
        np.concatenate([one for fold in folds for one in fold.mates]),
        np.concatenate([one for fold in folds for one in fold.own]),
        np.concatenate([one for fold in folds for one in fold.samples]),
        np.concatenate([one + i * most for i, fold in enumerate(folds) for one in fold.batches]),
    )
    return ProbedLayer(layer.name, order, layer.channels, moments, mates, own, p_value)


def _rows(parts: list[Floats]) -> Floats:
    return np.concatenate(parts)


def _moments(said: Ints, true: Ints, batches: int) -> Change:
    """How often moments tell the class. Draws deal the same samples anew: those of one count."""
    right = float((said == true).mean())
    classes = np.unique(true)
    chance = float(sum((said == c).mean() * (true == c).mean() for c in classes))
    low_high = share(round(right * batches), batches)
    low, high = min(low_high.low, right), max(low_high.high, right)
    return Change(chance, right, right - chance, low - chance, high - chance)


def strangers_read(
    alike: Ints, said: Ints, mates: Ints, own: Ints, samples: Ints, batches: Ints
) -> tuple[Change, Figure, float | None]:
    """(read as the mates' class against shuffled batches, as their own, one-sided p-value).

    `alike` (draws, n): what each sample is read as in shuffled batches.
    """
    read, before = turned(said, mates, samples, alike)
    gap = clustered_share(read - before, samples, batches)
    itself = clustered_share((said == own).astype(np.float64), samples, batches)
    change = Change(float(before.mean()), float(read.mean()), gap.value, gap.low, gap.high)
    return change, Figure(itself.value, *_within(itself.low, itself.high)), gap.p_value


def _within(low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """Limits of a share."""
    if low is None or high is None:
        return None, None
    return max(0.0, low), min(1.0, high)
