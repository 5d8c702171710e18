"""Statistics of its own for each call of a layer that a forward calls several times.

A detection head shared over feature levels, a siamese network: one module, several populations
(Wu & Johnson 2021, section 5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from bnaudit.engine.layers import BNLayer
from bnaudit.engine.lockstep import Arrival, Lockstep
from bnaudit.engine.population import Account, Calibration, Population, Statistics
from bnaudit.engine.state import Applied, statistics


def exact_by_call(work: Calibration) -> dict[BNLayer, list[Population]]:
    """What each call of each layer sees, every call upstream normalised by statistics of its own.

    `exact` with a barrier at every call: all batches wait there, and the call gets the statistics
    of what they brought. A single value a channel, or no element, has none: the layer's own hold.
    One forward over the data, with the live activations of all batches in memory. The populations
    of a layer stand in the order of its calls.

    Raises `OutOfOrderError` where the batches do not make the same calls, and what `exact` does.
    """
    batches = list(work.batches)
    account = Account(work)
    own = {layer: tuple(x.clone() for x in layer.estimated) for layer in work.layers}
    found: dict[BNLayer, list[Population]] = {}
    with Applied() as applied:

        def look(runner: int, layer: BNLayer, x: Tensor) -> Any:
            return account.look(batches[runner], layer, x)

        def barrier(arrivals: list[Arrival]) -> bool:
            if not arrivals:
                return False
            layer = arrivals[0].layer
            seen = [arrival.seen for arrival in arrivals if arrival.seen is not None]
            population = account.population(layer, seen)
            found.setdefault(layer, []).append(population)
            mean, var = population.statistics or own[layer]
            applied.put(layer, mean, var)
            work.progress(1)
            return True

        forwards = [lambda batch=batch: work.forward(batch) for batch in batches]
        Lockstep(work.layers, work.conditions.device, look, barrier).run(
            forwards, lambda number, output: None
        )
    return found


class SeparateCalls:
    """Handler for `intercepted`: each call of a layer normalises by statistics of its own.

    `by_call`: for each layer the statistics of its calls in a forward, in their order; None, or a
    call beyond them, leaves the layer's own. `start` has to be called before each forward.
    """

    def __init__(self, by_call: Mapping[BNLayer, Sequence[Statistics | None]]) -> None:
        self._by_call = by_call
        self._calls: dict[BNLayer, int] = {}

    def start(self, samples: int) -> None:
        """A forward is about to run."""
        self._calls.clear()

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run the layer with the statistics of this call."""
        call = self._calls.get(layer, 0)
        self._calls[layer] = call + 1
        known = self._by_call[layer]
        found = known[call] if call < len(known) else None
        if found is None:
            return forward(x)
        with statistics(layer, *found):
            return forward(x)
