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
from bnaudit.engine.state import Applied
from bnaudit.engine.trial import Trial, outputs_differ
from bnaudit.errors import ModelError
from bnaudit.results import Attribution
from bnaudit.verbs.calibration import first_samples

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
    groups = groups_of(batches)
    work = Calibration(model, layers, batches, groups, conditions, _as_it_is, advance)
    together: list[Any] = []

    def keep(batch: Batch, output: Any) -> None:
        if batch.index == batches[0].index:
            together.append(output)
        if done is not None:
            done(batch, output)

    result = exact(work, trial, keep)
    with Applied(result.statistics):
        alone = work.forward(batches[0])
    if not trial.dependence and outputs_differ(together[0], alone):
        raise ModelError(
            "the forwards influence each other when they run together (does the model, or a hook, "
            "keep state of its own during a forward?)"
        )
    return result


def groups_of(batches: Iterable[Batch]) -> int:
    """The number of jackknife groups that the batches are dealt to."""
    return 1 + max(int(batch.groups.max()) for batch in batches)


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
        batches = first_samples(self.batches, SEARCH_SAMPLES)
        outputs = _Outputs(self.task, batches)
        for batch in batches:
            moved = self.conditions.moved(batch)
            outputs.keeper(0)(batch, self.conditions.run(self.model, moved, batch))

        def left(k: int) -> float | None:
            if k not in outputs.kept:
                done = outputs.keeper(k)
                corrected_condition(
                    self.model, ranked[:k], self.trial, batches, self.conditions, advance, done
                )
            return outputs.apart(len(ranked), k)

        left(len(ranked))
        full = left(0)
        if full is None:
            return replace(found, search_note="the outputs are not comparable")
        low, high = 0, len(ranked) if full else 0  # `low` leaves too much, `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            effect = left(middle)
            if effect is not None and effect <= WITHIN * full:
                high = middle
            else:
                low = middle
        return replace(
            found,
            layers_that_matter=tuple(layer.name for layer in ranked[:high]),
            search_samples=sum(batch.size for batch in batches),
            effect=outputs.figure,
            full_effect=full,
            left_effect=left(high),
        )


class _Outputs:
    """The outputs with the first k layers corrected, by k and batch, and how far two are apart."""

    def __init__(self, task: Task, batches: list[Batch]) -> None:
        self._task = task
        self._sizes = {batch.index: batch.size for batch in batches}
        self.kept: dict[int, dict[int, Any]] = {}
        self.figure: Literal["kl", "relative_rms"] | None = None

    def keeper(self, k: int) -> Done:
        """Keeps the outputs with k layers corrected."""
        outputs = self.kept.setdefault(k, {})

        def keep(batch: Batch, output: Any) -> None:
            outputs[batch.index] = output

        return keep

    def apart(self, reference: int, k: int) -> float | None:
        """Mean KL(reference ‖ k) of class scores, relative RMS difference of other outputs."""
        comparison = OutputComparison(self._task, None)
        for index, size in self._sizes.items():
            comparison.pair(self.kept[reference][index], self.kept[k][index], None, size)
        figures = comparison.result(())
        self.figure = "kl" if figures.kl is not None else "relative_rms"
        return figures.kl if figures.kl is not None else figures.relative_rms
