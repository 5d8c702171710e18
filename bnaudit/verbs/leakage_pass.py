"""Samples in given batches under mini-batch statistics, and what comes of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnaudit.engine.batches import labels_of
from bnaudit.engine.conditions import Subject
from bnaudit.engine.outputs import OutputComparison, Task
from bnaudit.engine.segments import GhostBatches
from bnaudit.engine.state import intercepted
from bnaudit.engine.variants import Watcher, adaptive
from bnaudit.errors import InputError
from bnaudit.stats.arranged import Drawn, Floats
from bnaudit.stats.arrangements import Ints
from bnaudit.stats.outputs import per_sample_loss, top_one_right
from bnaudit.verbs.leakage_pool import Pool

NO_CLASS = -1


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of each sample of a pool in one set of batches, (n,) each.

    `predicted`: its top-1 class, `NO_CLASS` where it has no place, or no class. `correct` (0 or 1)
    and `loss` (nats) are NaN without a place or a label. `batches`: the number of its mini-batch,
    -1 without a place.
    """

    predicted: Ints
    correct: Floats
    loss: Floats
    batches: Ints

    def agrees(self, other: Outcome) -> Floats:
        """Whether both have the same top-1 class, 0 or 1; NaN where one has none."""
        known = (self.predicted != NO_CLASS) & (other.predicted != NO_CLASS)
        return np.where(known, (self.predicted == other.predicted).astype(float), np.nan)


@dataclass(frozen=True)
class Runner:
    """Runs batches of a pool through a model, inside `conditions.entered(model)`.

    `forward_size`: about how many samples a forward gets; small mini-batches share one.
    """

    subject: Subject
    pool: Pool
    task: Task
    forward_size: int
    progress: Callable[[int], None]

    def deployed(self) -> Outcome:
        """Every sample under the layers' own statistics."""
        chosen = np.arange(self.pool.samples)
        parts = [
            chosen[start : start + self.forward_size]
            for start in range(0, len(chosen), self.forward_size)
        ]
        return self._run(parts, None)

    def mini_batches(self, batches: Ints) -> tuple[Outcome, set[str]]:
        """Each row of `batches` normalised by itself; also the layers that kept their estimates."""
        handler = GhostBatches(batches.shape[1])
        return self.watched(batches, handler), handler.kept

    def watched(self, batches: Ints, handler: Watcher) -> Outcome:
        """The same with a handler of the caller's, which normalises by mini-batches itself."""
        together = max(1, self.forward_size // batches.shape[1])
        parts = [
            batches[start : start + together].reshape(-1)
            for start in range(0, len(batches), together)
        ]
        outcome = self._run(parts, handler)
        outcome.batches[batches.reshape(-1)] = np.repeat(np.arange(len(batches)), batches.shape[1])
        return outcome

    def _run(self, parts: Sequence[Ints], handler: Watcher | None) -> Outcome:
        subject, n = self.subject, self.pool.samples
        outcome = Outcome(
            np.full(n, NO_CLASS), np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1)
        )
        comparison = OutputComparison(self.task, None)  # it checks scores and labels
        layers = adaptive(subject.layers) if handler is not None else []
        for index, chosen in enumerate(parts):
            batch = self.pool.batch(chosen, index)
            data = subject.conditions.moved(batch)
            if handler is not None:
                handler.start(batch.size)
                with intercepted(layers, handler):
                    output = subject.conditions.run(subject.model, data, batch)
            else:
                output = subject.conditions.run(subject.model, data, batch)
            labels = labels_of(data)
            comparison.deployed(output, labels, batch.size)
            logits = comparison.logits(output)
            if logits is not None and len(logits) == batch.size:
                _note(outcome, chosen, logits, labels)
            self.progress(batch.size)
        not_finite = comparison.result(()).not_finite
        if not_finite and handler is None:
            raise InputError(
                f"the outputs of {not_finite} of {n} samples are not finite, as deployed: bnaudit "
                "measure names the layer; mend the data or the model first"
            )
        return outcome


def _note(outcome: Outcome, chosen: Ints, logits: Tensor, labels: Tensor | None) -> None:
    best = logits.max(1)
    predicted = torch.where(best.values.isnan(), NO_CLASS, best.indices)
    outcome.predicted[chosen] = predicted.cpu().numpy()
    if labels is not None and len(labels) == len(logits):
        labels = labels.to(logits.device)
        outcome.correct[chosen] = top_one_right(logits, labels).cpu().numpy()
        outcome.loss[chosen] = per_sample_loss(logits, labels).cpu().numpy()


def drawn(outcomes: Sequence[Outcome], values: Sequence[NDArray[np.float64]]) -> Drawn:
    """Figures of the samples in several draws, with the batches that they had."""
    return Drawn(np.stack(values), np.stack([outcome.batches for outcome in outcomes]))
