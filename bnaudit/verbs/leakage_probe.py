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


@dataclass(frozen=True, eq=False)
class _Draw:
    """One draw of a fold: the same samples in batches of one class, with strangers, and shuffled.

    `classes`: of the rows of `pure`. `placed`: the samples of the rows of `alike`. Of each stranger
    `places` is its row of `mixed`, `samples` its number, `mates` the class of its mates, `batches`
    its batch in this draw.
    """

    pure: ProbedSizes
    classes: Ints
    mixed: ProbedSizes
    places: Ints
    samples: Ints
    mates: Ints
    batches: Ints
    alike: ProbedSizes
    placed: Ints


@dataclass(frozen=True, eq=False)
class _Plan:
    """How probes look: `labels` (n,) of the pool, batches of `size`, so many draws."""

    runner: Runner
    labels: Ints
    size: int
    draws: int
    seed: int


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
    plan = _Plan(runner, labels, fitting, draws, seed)
    rng = np.random.default_rng(seed)
    fold_of = folds_of(labels, FOLDS, rng)
    folds = [
        [_drawn(plan, np.flatnonzero(fold_of == number), rng) for _ in range(draws)]
        for number in range(FOLDS)
    ]
    every = [draw for fold in folds for draw in fold]
    layers = []
    for order, layer in enumerate(every[0].pure.activations):
        if all(layer in one.activations for draw in every for one in (draw.pure, draw.mixed)):
            layers.append(_probed(plan, layer, order, folds))
        progress(1)
    return Probed(
        size=fitting,
        classes=len(np.unique(np.concatenate([draw.classes for draw in folds[0]]))),
        batches=_batches(plan, folds),
        strangers=sum(len(draw.places) for draw in every),
        folds=FOLDS,
        layers=tuple(layers),
    )


def _batches(plan: _Plan, folds: list[list[_Draw]]) -> int:
    """Of one class, in a draw of all folds."""
    return sum(len(fold[0].classes) // plan.size for fold in folds)


def _drawn(plan: _Plan, members: Ints, rng: np.random.Generator) -> _Draw:
    """Run the samples of a fold in the three kinds of batches."""
    labels, size = plan.labels, plan.size

    def watched(batches: Ints) -> ProbedSizes:
        handler = ProbedSizes(size, plan.seed)
        plan.runner.watched(batches, handler)
        return handler

    batches = members[of_one_group(labels[members], size, rng)]
    mixed, strange = with_strangers(batches, labels, strangers_in(size), rng)
    dealt = members[shuffled(len(members), size, rng)]
    places = np.flatnonzero(strange.reshape(-1))
    return _Draw(
        watched(batches),
        labels[batches].reshape(-1),
        watched(mixed),
        places,
        mixed.reshape(-1)[places],
        labels[batches[places // size, -1]],
        places // size,
        watched(dealt),
        dealt.reshape(-1),
    )


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the probe of a layer says in one fold: of strangers, of shuffled samples, of moments."""

    strangers: Ints
    alike: list[Ints]
    moments: Ints


def _asked(plan: _Plan, layer: BNLayer, fold: list[_Draw], others: list[_Draw]) -> _Answers:
    """Teach probes of a layer with the batches of one class of other folds, ask them of `fold`."""
    taught = np.concatenate([draw.classes for draw in others])
    x = np.concatenate([_rows(draw.pure.activations[layer]) for draw in others])
    strangers = [_rows(draw.mixed.activations[layer])[draw.places] for draw in fold]
    dealt = [_rows(draw.alike.activations[layer]) for draw in fold]
    said = read_classes(x, taught, np.concatenate([*strangers, *dealt]), plan.seed)
    ends = np.cumsum([sum(map(len, strangers)), *map(len, dealt)])
    of_strangers, *alike = np.split(said, ends[:-1])
    x = np.concatenate([_rows(draw.pure.moments[layer]) for draw in others])
    held = np.concatenate([_rows(draw.pure.moments[layer]) for draw in fold])
    return _Answers(of_strangers, alike, read_classes(x, taught[:: plan.size], held, plan.seed))


def _probed(plan: _Plan, layer: BNLayer, order: int, folds: list[list[_Draw]]) -> ProbedLayer:
    answers = []
    alike = np.full((plan.draws, len(plan.labels)), -1)
    for fold in folds:
        others = [draw for other in folds if other is not fold for draw in other]
        answers.append(_asked(plan, layer, fold, others))
        for row, draw, said in zip(alike, fold, answers[-1].alike, strict=True):
            row[draw.placed] = said
    every = [draw for fold in folds for draw in fold]
    moments = _moments(
        np.concatenate([one.moments for one in answers]),
        np.concatenate([draw.classes[:: plan.size] for draw in every]),
        _batches(plan, folds),
    )
    most = max(len(draw.classes) // plan.size for draw in every)
    samples = np.concatenate([draw.samples for draw in every])
    mates, own, p_value = strangers_read(
        alike,
        np.concatenate([one.strangers for one in answers]),
        np.concatenate([draw.mates for draw in every]),
        plan.labels[samples],
        samples,
        np.concatenate([draw.batches + i * most for i, draw in enumerate(every)]),
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
