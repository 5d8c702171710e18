"""Exact population statistics in one forward pass over the data.

The corrected condition: every layer normalises by the statistics of the whole population, with
everything upstream normalising so too (Ioffe & Szegedy 2015, Algorithm 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.batches import Batch
from bnaudit.engine.conditions import OutOfMemoryError, ran_out_of_memory
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.lockstep import ELSE, Arrival, Lockstep, OutOfOrderError
from bnaudit.engine.population import (
    Account,
    Calibration,
    Result,
    Stopped,
    in_order,
    packed,
    unpacked,
)
from bnaudit.engine.sequential import settle_one_by_one
from bnaudit.engine.state import Applied
from bnaudit.engine.trial import Trial
from bnaudit.stats.moments import Moments, pool

Done = Callable[[Batch, Any], None]


def exact(work: Calibration, trial: Trial, done: Done | None = None) -> Result:
    """All batches advance together; the pooled moments at each layer become its statistics.

    One forward over the data, with the live activations of all batches in memory. From the first
    layer on that is called several times in a forward, layer by layer. `done(batch, output)` gets
    every batch's output under the new statistics.

    Raises `OutOfOrderError` where the batches take different ways through the model, `ModelError`
    where it runs layers in threads of its own, `OutOfMemoryError` with the number to try.
    """
    own = {layer.name for layer in work.layers}
    ranks = work.ranks
    several = {name for name, calls in trial.calls.items() if calls > 1 and name in own}
    while True:
        order = list(trial.calls)
        cut = min((order.index(n) if n in order else 0 for n in several), default=None)
        later = [] if cut is None else in_order(work.layers, order, beyond=cut)
        try:
            with ranks.as_one():
                result = _in_lockstep(work, later, done)
            break
        except _CalledAgain as again:
            several.add(again.layer)
    if later:
        names = ", ".join(layer.name for layer in later if layer.name in several)
        result.notes.append(
            f"called several times in a forward: {names}; from there on layer by layer"
        )
        settle_one_by_one(work, later, result)
    result.together(ranks)
    if later and done is not None:
        with Applied(result.statistics):
            for batch in work.batches:
                done(batch, work.forward(batch))
    return result


def _in_lockstep(work: Calibration, later: list[BNLayer], done: Done | None) -> Result:
    """Settle the layers ahead of those in `later`; forwards stop where these begin."""
    batches = list(work.batches)
    account, result, meeting = Account(work), Result(), _Meeting(work, len(batches))
    with Applied() as applied:

        def look(runner: int, layer: BNLayer, x: Tensor) -> Any:
            if layer in later:
                raise Stopped
            if layer in result.populations:
                raise _CalledAgain(layer.name)
            return account.look(batches[runner], layer, x)

        def barrier(arrivals: list[Arrival]) -> bool:
            seen = [arrival.seen for arrival in arrivals if arrival.seen is not None]
            waiting = arrivals[0].layer if arrivals else None
            groups, own = account.own(waiting, seen) if waiting is not None else (None, None)
            met = meeting.met(waiting, own)
            if met is None:
                return False
            layer, whole = met
            population = account.settled(layer, groups or account.own(layer, ())[0], whole)
            result.populations[layer] = population
            if population.statistics is not None:
                applied.put(layer, *population.statistics)
            work.progress(1)
            return True

        def finished(runner: int, output: Any) -> None:
            if done is not None and not later:
                done(batches[runner], output)

        try:
            Lockstep(work.layers, work.conditions.device, look, barrier).run(
                [_until_stopped(work, batch) for batch in batches], finished
            )
        except Exception as error:  # in a forward, or between them
            if isinstance(error, OutOfMemoryError) or ran_out_of_memory(error):
                raise _with_number_to_try(work, batches, result) from error
            raise
    return result


def _until_stopped(work: Calibration, batch: Batch) -> Callable[[], Any]:
    def run() -> Any:
        try:
            return work.forward(batch)
        except Stopped:
            return None

    return run


def _with_number_to_try(
    work: Calibration, batches: list[Batch], result: Result
) -> OutOfMemoryError:
    samples = sum(batch.size for batch in batches)
    fewer = samples * 6 // 10
    fewer = max(1, fewer - fewer % 16 if fewer > 32 else fewer) * work.ranks.size
    after = list(result.populations)[-1].name if result.populations else "the start"
    return OutOfMemoryError(
        f"out of memory on {work.conditions.device} with the activations of {samples} samples "
        f"alive at once, behind {after}: try --samples {fewer}, or --method sequential"
    )


class _CalledAgain(BaseException):
    """A layer that is settled is called a second time in a forward; `layer` is its name."""

    def __init__(self, layer: str) -> None:
        super().__init__(layer)
        self.layer = layer


class _Meeting:
    """The forwards of all ranks at one layer: one collective, of the widest layer's size."""

    def __init__(self, work: Calibration, batches: int) -> None:
        self._ranks, self._layers = work.ranks, list(work.layers)
        self._idle = _NO_BATCHES if batches == 0 else _ENDED
        self._figures = 2 * max((layer.channels for layer in self._layers), default=0) + 1

    def met(self, layer: BNLayer | None, own: Moments | None) -> tuple[BNLayer, Moments] | None:
        """The layer at which all wait, and its moments (1, C) over all; None once all have ended.

        `layer`: where those of this rank wait, `own` what they saw. Raises `OutOfOrderError`.
        """
        if self._ranks.size == 1:
            return (layer, own) if layer is not None and own is not None else None
        message = torch.zeros(1 + self._figures, dtype=torch.float64, device="cpu")
        message[0] = self._idle if layer is None else self._layers.index(layer)
        if own is not None:
            figures = packed(own)
            message[1 : 1 + len(figures)] = figures
        messages = torch.stack(self._ranks.gather_tensor(message))
        there = self._place([int(place) for place in messages[:, 0]])
        if there is None:
            return None
        return there, pool(unpacked(messages[:, 1 : 2 + 2 * there.channels]))

    def _place(self, places: list[int]) -> BNLayer | None:
        working = {place: rank for rank, place in enumerate(places) if place != _NO_BATCHES}
        if len(working) > 1:
            said = [
                f"the batches of rank {rank} "
                + (f"call layer {self._layers[place].name}" if place >= 0 else "have ended")
                for place, rank in list(working.items())[:2]
            ]
            raise OutOfOrderError(f"{' where '.join(said)}: {ELSE}")
        place = next(iter(working), _ENDED)
        return self._layers[place] if place >= 0 else None


_ENDED, _NO_BATCHES = -1, -2
"""Instead of a layer's number: all forwards of a rank have ended; it never had any."""
