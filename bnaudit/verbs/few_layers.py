"""How few layers matter: whose recalibration alone nearly does what that of all layers does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from bnaudit.engine.batches import Batch
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.exact import Done, exact
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.outputs import OutputComparison, Task
from bnaudit.engine.population import Calibration, Result, Statistics
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.engine.state import Applied
from bnaudit.engine.trial import Trial, outputs_differ
from bnaudit.errors import ModelError
from bnaudit.results import Attribution
from bnaudit.verbs.calibration import first_samples

Effect = Literal["kl", "relative_rms"]

SEARCH_SAMPLES = 128
"""So many samples search: each step is a forward over them."""

WITHIN = 0.1
"""The share of the full correction's effect that may be left: a tenth."""


def corrected_condition(
    model: nn.Module,
    layers: Sequence[BNLayer],
    trial: Trial,
    batches: list[Batch],
    conditions: Conditions,
    advance: Callable[[int], None],
    done: Done | None = None,
) -> Result:
    """What `layers` see, each normalising by what it sees. Inside `conditions.entered(model)`.

    Raises `ModelError` where a forward of its own does not give what it gave among the others.
    """
    ranks = conditions.ranks
    groups = groups_of(batches, ranks)
    work = Calibration(model, layers, batches, groups, conditions, _as_it_is, advance)
    together: list[Any] = []

    def keep(batch: Batch, output: Any) -> None:
        if batch is batches[0]:
            together.append(output)
        if done is not None:
            done(batch, output)

    result = exact(work, trial, keep)
    with ranks.as_one():
        for batch in batches[:1]:  # of this rank, which may have none
            with Applied(result.statistics):
                alone = work.forward(batch)
            if not trial.stochastic and outputs_differ(together[0], alone):
                raise ModelError(
                    "the forwards influence each other when they run together (does the model, or "
                    "a hook, keep state of its own during a forward?)"
                )
    return result


def groups_of(batches: Iterable[Batch], ranks: Ranks = ALONE) -> int:
    """The number of jackknife groups that the batches of all ranks are dealt to."""
    own = max((int(batch.groups.max()) for batch in batches), default=0)
    return 1 + max(ranks.gather(own))


def _as_it_is(layer: BNLayer, mean: Tensor, var: Tensor) -> Statistics:
    return mean, var


@dataclass(frozen=True)
class Search:
    """A bisection over the number of layers, the first `SEARCH_SAMPLES` of `batches` its data."""

    model: nn.Module
    trial: Trial
    batches: list[Batch]
    conditions: Conditions
    task: Task

    def run(
        self, ranked: list[BNLayer], found: Attribution, advance: Callable[[int], None]
    ) -> Attribution:
        """`found` with the fewest of the `ranked` layers, from the first on, that do.

        They do when recalibrating them alone leaves at most `WITHIN` of what recalibrating all of
        them does to the outputs. It is taken that more layers leave less.
        """
        ranks = self.conditions.ranks
        batches = first_samples(self.batches, SEARCH_SAMPLES, ranks)
        reference: dict[int, Any] = {}

        def keep(batch: Batch, output: Any) -> None:
            reference[batch.index] = output

        self._correct(ranked, batches, advance, keep)

        def left(k: int) -> tuple[Effect, float] | None:
            distance = _Distance(self.task, reference)
            if k > 0:
                self._correct(ranked[:k], batches, advance, distance.add)
            else:
                for batch in batches:
                    moved = self.conditions.moved(batch)
                    distance.add(batch, self.conditions.run(self.model, moved, batch))
            found = distance.result(ranks)
            return ranks.from_first(lambda: found)

        start = left(0)
        if start is None:
            return replace(found, search_note="the outputs are not comparable")
        effect, full = start
        low, high = 0, len(ranked) if full else 0  # `low` leaves too much, `high` does not
        rest = 0.0
        while high - low > 1:
            middle = (low + high) // 2
            there = left(middle)
            if there is not None and there[1] <= WITHIN * full:
                high, rest = middle, there[1]
            else:
                low = middle
        return replace(
            found,
            layers_that_matter=tuple(layer.name for layer in ranked[:high]),
            search_samples=sum(ranks.gather(sum(batch.size for batch in batches))),
            effect=effect,
            full_effect=full,
            left_effect=rest,
        )

    def _correct(
        self,
        layers: list[BNLayer],
        batches: list[Batch],
        advance: Callable[[int], None],
        done: Done,
    ) -> None:
        corrected_condition(self.model, layers, self.trial, batches, self.conditions, advance, done)


class _Distance:
    """How far outputs are from those of the full correction, batch by batch."""

    def __init__(self, task: Task, reference: dict[int, Any]) -> None:
        self._comparison = OutputComparison(task, None)
        self._reference = reference

    def add(self, batch: Batch, output: Any) -> None:
        """The outputs of one batch."""
        self._comparison.pair(self._reference[batch.index], output, None, batch.size)

    def result(self, ranks: Ranks) -> tuple[Effect, float] | None:
        """Mean KL(reference ‖ these) of class scores, relative RMS difference of other outputs."""
        self._comparison.together(ranks)
        figures = self._comparison.result(())
        if figures.kl is not None:
            return "kl", figures.kl
        return ("relative_rms", figures.relative_rms) if figures.relative_rms is not None else None
