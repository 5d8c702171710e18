"""Exact population statistics layer by layer: the oracle for `exact`, and its fallback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from bnaudit.engine.conditions import OutOfMemoryError, ran_out_of_memory
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import (
    Account,
    Calibration,
    Population,
    Result,
    Seen,
    Stopped,
    in_order,
)
from bnaudit.engine.state import Applied, intercepted
from bnaudit.engine.trial import Trial
from bnaudit.stats.shift import channel_mean, squared_shift

SETTLED = 1e-5
"""A residual at which sweeps over layers that depend on each other stop."""

MOST_SWEEPS = 40
"""Or twice the number of layers, where that is more."""

PATIENCE = 8
"""So many sweeps without a tenth of improvement end the attempt."""


def sequential(work: Calibration, trial: Trial) -> Result:
    """One layer after another; each pass over the data stops at its layer. No extra memory."""
    result = Result()
    settle_one_by_one(work, in_order(work.layers, list(trial.calls)), result)
    result.together(work.ranks)
    return result


def settle_one_by_one(work: Calibration, targets: list[BNLayer], result: Result) -> None:
    """Settle `targets` in the order of their calls, with those of `result` in place; add them.

    A layer called several times gets the statistics pooled over its calls. Where a call depends on
    layers behind it, sweeps are repeated until the residual is `SETTLED`, at most `MOST_SWEEPS` or
    twice as many as there are layers; the best counts.
    """
    try:
        _settle(work, targets, result)
    except Exception as error:  # between the forwards; in one it has been told already
        if ran_out_of_memory(error):
            raise OutOfMemoryError(
                f"out of memory on {work.conditions.device}: give a smaller --batch-size"
            ) from error
        raise


def _settle(work: Calibration, targets: list[BNLayer], result: Result) -> None:
    with work.ranks.as_one():
        calls = _count_calls(work, targets, result)
    with Applied(result.statistics) as applied:
        if not calls.entangled:
            result.populations.update(_sweep(work, calls, applied))
            return
        best = float("inf")
        populations: dict[BNLayer, Population] = {}
        stale = sweeps = 0
        while (
            sweeps < max(MOST_SWEEPS, 2 * len(work.layers)) and stale < PATIENCE and best > SETTLED
        ):
            sweeps += 1
            found = _sweep(work, calls, applied)
            residual = _residual(work, found)
            residual = work.ranks.from_first(partial(float, residual))
            stale = 0 if residual < 0.9 * best else stale + 1
            if residual < best or not populations:
                best, populations = residual, found
    result.populations.update(populations)
    result.notes.append(
        f"layers that are called several times, or in changing order: {sweeps} sweeps, residual "
        f"{best:.1e}"
    )


@dataclass(frozen=True)
class _Calls:
    """How often each batch calls each layer, the order of first calls, and whether calls may
    depend on layers behind them."""

    counts: list[dict[BNLayer, int]]
    order: list[BNLayer]
    entangled: bool


def _count_calls(work: Calibration, targets: list[BNLayer], result: Result) -> _Calls:
    """One plain pass: no layer may be missed because the first samples did not call it.

    The order is that of all ranks' batches.
    """
    sequences: list[list[BNLayer]] = []
    numbers: list[int] = []

    def note(layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        sequences[-1].append(layer)
        return forward(x)

    with Applied(result.statistics), intercepted(targets, note):
        for batch in work.batches:
            sequences.append([])
            numbers.append(batch.index)
            work.forward(batch)
    counts = [{layer: called.count(layer) for layer in called} for called in sequences]
    by_name = {layer.name: layer for layer in targets}
    ways: dict[tuple[str, ...], int] = {}
    for number, called in enumerate(sequences):
        ways.setdefault(tuple(layer.name for layer in called), numbers[number])
    of_all = [way for share in work.ranks.gather(ways) for way in share.items()]
    in_turn = [way for way, _ in sorted(of_all, key=lambda one: one[1])]
    order = [by_name[name] for name in dict.fromkeys(name for way in in_turn for name in way)]
    several = any(len(set(way)) < len(way) for way in in_turn)
    return _Calls(counts, order, several or len(set(in_turn)) > 1)


def _sweep(work: Calibration, calls: _Calls, applied: Applied) -> dict[BNLayer, Population]:
    found = {}
    for layer in calls.order:
        found[layer] = _one_layer(work, layer, calls)
        statistics = found[layer].statistics
        if statistics is not None:  # what a rule leaves alone once, it leaves alone again
            applied.put(layer, *statistics)
        work.progress(1)
    return found


def _one_layer(work: Calibration, layer: BNLayer, calls: _Calls) -> Population:
    """A pass that measures one layer, pooled over its calls, and stops behind the last of them."""
    account = Account(work)
    seen: list[Seen] = []
    for batch, counts in zip(work.batches, calls.counts, strict=True):
        left = counts.get(layer, 0)

        def measure(layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
            nonlocal left
            if (one := account.look(batch, layer, x)) is not None:  # noqa: B023 - of this turn
                seen.append(one)
            left -= 1
            if left == 0:
                raise Stopped
            return forward(x)

        if left:
            with intercepted([layer], measure), suppress(Stopped):
                work.forward(batch)
    return account.population(layer, seen)


def _residual(work: Calibration, found: dict[BNLayer, Population]) -> float:
    """The largest ESM of the layers that changed, against what the rule makes of another pass."""
    account = Account(work)
    seen: dict[BNLayer, list[Seen]] = {}
    for batch in work.batches:

        def measure(layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
            if (one := account.look(batch, layer, x)) is not None:  # noqa: B023 - of this turn
                seen.setdefault(layer, []).append(one)
            return forward(x)

        with intercepted(list(found), measure):
            work.forward(batch)
    largest = 0.0
    for layer, there in found.items():
        wanted = account.population(layer, seen.get(layer, [])).statistics
        present = there.statistics
        if present is not None and wanted is not None:
            shift = squared_shift(*wanted, *present, layer.eps or 0.0)
            largest = max(largest, float(channel_mean(shift.total)) ** 0.5)
    return largest
