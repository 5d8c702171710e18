"""Whether the data are preprocessed as the model wants them: found out by trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnaudit.engine.batches import Batch, slice_batch
from bnaudit.engine.conditions import Subject
from bnaudit.engine.first_layers import FirstShift, first_shift
from bnaudit.engine.output_parts import class_scores
from bnaudit.engine.state import reseed, seeded
from bnaudit.errors import ModelError, NonFiniteError
from bnaudit.results import Candidate, Change, Preprocessing
from bnaudit.stats.jackknife import deal, jackknife
from bnaudit.stats.outputs import per_sample_entropy
from bnaudit.stats.paired import mean_change
from bnaudit.stats.roots import jackknife_change, jackknife_root
from bnaudit.stats.significance import upper_tail_p
from bnaudit.verbs.image_inputs import images_of, map_images
from bnaudit.verbs.mistakes import RIGHT, Mistake, mistakes_of

MOST_SAMPLES = 256
"""So many samples tell the mistakes apart. Channels in reverse order, the gentlest, are found in
all of 32 draws of CIFAR-10 images for two ResNets; with half as many in 29."""

MOST_PIXELS = 128 * 224 * 224
"""Of large images fewer samples do: there is more in each."""

FEWEST_SAMPLES = 16
"""But not fewer than these: an interval needs groups."""

MOST_GROUPS = 32
"""Of the jackknife."""

CLOSE = 1.5
"""The whole network is run for candidates that leave no more than so many times the least shift."""

TRIED_FROM = 0.1
"""A shift at the first layers below which nothing is tried: the data are as the model wants them.
The rule that judges has a threshold of its own, which may be higher."""


def try_preprocessing(subject: Subject, batches: Iterable[Batch]) -> Preprocessing | None:
    """The shift at the first layers, and where it is large, what is left of it with each mistake
    of the preprocessing undone.

    Inside `conditions.entered(model)`. Looks at the first `MOST_SAMPLES` samples of `batches`, and
    runs the model no further than its first layers. Candidates that the model does not take, or
    that overflow, are left out. The generators are as before afterwards. None where the model does
    not run as far as a layer with figures.
    """
    with seeded(subject.conditions.seed, subject.conditions.device):
        chosen = _first(batches)
        given = _shift(subject, chosen, None) if chosen else None
        if given is None:
            return None
        found = _as_given(given, sum(batch.size for batch in chosen))
        if found.shift < TRIED_FROM:
            return found
        images = [image for batch in chosen for image in images_of(batch.data)]
        problem = _problem(images, found) or _never_estimated(subject, found)
        if problem is not None:
            note = f"no mistake of the preprocessing was tried: {problem}"
            return replace(found, note=note)
        mistakes = mistakes_of(images)
        tried = list(_tried(subject, chosen, given, mistakes))
        if mistakes and not tried:
            note = "no mistake of the preprocessing could be tried: the model takes none of them"
            return replace(found, note=note)
        tried.sort(key=lambda one: one.candidate.shift.after)
        candidates = tuple(_with_certainty(tried, _Certainty(subject, chosen)))
    return replace(found, candidates=candidates)


@dataclass(frozen=True)
class _Tried:
    mistake: Mistake
    candidate: Candidate


def _tried(
    subject: Subject, batches: Sequence[Batch], given: FirstShift, mistakes: Sequence[Mistake]
) -> Iterator[_Tried]:
    """What undoing each of the mistakes does to the first layers."""
    seen: dict[Mistake | None, FirstShift] = {None: given}
    for mistake in mistakes:
        left = _shift(subject, batches, mistake)
        candidate = _compared(mistake, given, left) if left is not None else None
        if left is None or candidate is None:
            continue
        seen[mistake] = left
        scaled = mistake.without_fault
        if mistake.fault is not RIGHT and scaled in seen:
            candidate = replace(candidate, pixels=_change(seen[scaled], left))
        yield _Tried(mistake, candidate)


def _with_certainty(tried: Sequence[_Tried], certainty: _Certainty) -> Iterator[Candidate]:
    """The same; those of faulty pixels that leave little with what the whole network says."""
    for one in tried:
        candidate, pixels = one.candidate, one.candidate.pixels
        little = candidate.shift.after <= CLOSE * tried[0].candidate.shift.after
        if little and pixels is not None and pixels.high is not None and pixels.high < 0:
            entropy = certainty.change(one.mistake.without_fault, one.mistake)
            candidate = replace(candidate, entropy=entropy)
        yield candidate


class _Certainty:
    """How undecided the whole network is: the entropy of its class scores, sample by sample."""

    def __init__(self, subject: Subject, batches: Sequence[Batch]) -> None:
        self._subject, self._batches = subject, batches
        self._known: dict[Mistake | None, NDArray[np.float64] | None] = {}

    def change(self, before: Mistake | None, after: Mistake) -> Change | None:
        """From the data with one mistake undone (None: as given) to those with the other undone."""
        old, new = self._entropy(before), self._entropy(after)
        if old is None or new is None:
            return None
        changed = mean_change(old, new, self._subject.conditions.seed)
        return Change(*changed) if changed is not None else None

    def _entropy(self, mistake: Mistake | None) -> NDArray[np.float64] | None:
        """(N,) in nats; None where the outputs are no class scores."""
        if mistake not in self._known:
            self._known[mistake] = self._measured(mistake)
        return self._known[mistake]

    def _measured(self, mistake: Mistake | None) -> NDArray[np.float64] | None:
        conditions, found = self._subject.conditions, []
        reseed(conditions.seed, conditions.device)
        for batch in self._batches:
            data = _undone(mistake, conditions.moved(batch))
            try:
                scores = class_scores(conditions.run(self._subject.model, data, batch))
            except ModelError:
                return None
            if scores is None:
                return None
            found.append(per_sample_entropy(scores).cpu().double())
        return torch.cat(found).numpy()


def _first(batches: Iterable[Batch]) -> list[Batch]:
    """The first samples, dealt to jackknife groups of a few consecutive ones."""
    kept: list[Batch] = []
    limit, left = MOST_SAMPLES, MOST_SAMPLES
    for batch in batches:
        if not kept:
            limit = left = _enough(batch)
        size = min(batch.size, left)
        data = slice_batch(batch.data, 0, size, batch.size)
        kept.append(Batch(batch.index, data, batch.groups[:size]))
        left -= size
        if left == 0:
            break
    samples = limit - left
    groups, start, dealt = deal(samples, min(samples, MOST_GROUPS)), 0, []
    for batch in kept:
        dealt.append(Batch(batch.index, batch.data, groups[start : start + batch.size]))
        start += batch.size
    return dealt


def _enough(first: Batch) -> int:
    """How many samples to look at, of the size of those in the first batch."""
    pixels = sum(image.numel() // image.shape[1] for image in images_of(first.data))
    if not pixels:
        return MOST_SAMPLES
    return max(FEWEST_SAMPLES, min(MOST_SAMPLES, MOST_PIXELS * first.size // pixels))


def _shift(
    subject: Subject, batches: Sequence[Batch], mistake: Mistake | None
) -> FirstShift | None:
    """The shift at the first layers, with the mistake undone; None where the forward fails."""
    reseed(subject.conditions.seed, subject.conditions.device)
    try:
        return first_shift(subject, batches, partial(_undone, mistake))
    except (ModelError, NonFiniteError):
        return None


def _undone(mistake: Mistake | None, data: Any) -> Any:
    return data if mistake is None else map_images(mistake.undone, data)


def _as_given(given: FirstShift, samples: int) -> Preprocessing:
    root = jackknife_root(given.squared, given.left_out)
    return Preprocessing(
        layers=given.layers,
        samples=samples,
        shift=math.sqrt(given.squared) if root is None else root.value,
        low=None if root is None else root.low,
        high=None if root is None else root.high,
        by_layer=tuple(map(math.sqrt, given.by_layer)),
    )


def _problem(images: Sequence[Tensor], found: Preprocessing) -> str | None:
    """Why nothing can be tried."""
    if not images:
        return "the inputs are no images of 1 or 3 channels in floating point"
    if len({image.shape[1] for image in images}) > 1:
        return "some images have 1 channel and some have 3"
    if found.low is None:
        return f"no interval from {found.samples} samples"
    return None


def _never_estimated(subject: Subject, found: Preprocessing) -> str | None:
    """Which of the first layers still has the initial statistics, which no data have to fit."""
    for layer in subject.layers:
        if layer.name in found.layers:
            mean, var = layer.estimated
            if bool((mean == 0).all()) and bool((var == 1).all()):
                return f"the statistics of {layer.name} were never estimated"
    return None


def _compared(mistake: Mistake, given: FirstShift, left: FirstShift) -> Candidate | None:
    """What undoing the mistake does; None where the model then goes another way."""
    if left.layers != given.layers or not torch.equal(left.counts, given.counts):
        return None
    change = _change(given, left)
    lowered = jackknife(
        given.squared - left.squared,
        torch.from_numpy(given.left_out - left.left_out),
        given.counts,
    )
    if change is None or lowered is None:
        return None
    return Candidate(
        mistake=mistake.mistake,
        mend=mistake.mend,
        shift=change,
        p_value=upper_tail_p(lowered.debiased, lowered.standard_error, lowered.groups, 0.0),
        by_layer=tuple(map(math.sqrt, left.by_layer)),
        pixel_range=(mistake.seen.low, mistake.seen.high),
        whole_levels=mistake.seen.whole_levels,
    )


def _change(before: FirstShift, after: FirstShift) -> Change | None:
    found = jackknife_change(before.squared, before.left_out, after.squared, after.left_out)
    return Change(*found) if found is not None else None
