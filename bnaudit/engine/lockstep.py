"""Forwards that advance together: each waits at every BatchNorm layer until all have come there.

Each batch's forward runs in a greenlet of its own. No tracing and no graph: control flow, detection
models and modules used out of order all work, as long as all batches call the layers in one order.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor

from bnaudit.engine.layers import BNLayer
from bnaudit.engine.state import intercepted
from bnaudit.engine.stopwatch import doing
from bnaudit.engine.thread_state import ThreadState, device_types, left_as
from bnaudit.errors import ModelError


@dataclass(frozen=True)
class Arrival:
    """One forward that waits at a layer: `runner` is its number, `seen` what `look` made of x."""

    runner: int
    layer: BNLayer
    seen: Any


class OutOfOrderError(ModelError):
    """The batches do not call the layers in one order, or call one again: no lockstep."""


class Lockstep:
    """Runs forwards together, with a barrier at every call of a layer.

    `look(runner, layer, x)` is called when a forward comes to a layer, on its own thread
    state; `barrier(arrivals)` once all are at one layer, before the first goes on, and once all
    have ended, with none: it says whether to go on.
    """

    def __init__(
        self,
        layers: Sequence[BNLayer],
        device: torch.device,
        look: Callable[[int, BNLayer, Tensor], Any],
        barrier: Callable[[list[Arrival]], bool],
    ) -> None:
        self._layers = layers
        self._device = device
        self._look, self._barrier = look, barrier
        self._runners: list[greenlet] = []
        self._numbers: dict[greenlet, int] = {}
        self._ending = False

    def run(self, forwards: Sequence[Callable[[], Any]], done: Callable[[int, Any], None]) -> None:
        """Run all `forwards` to their end; `done(number, output)` as each ends.

        Raises what a forward raises; `OutOfOrderError` where they disagree about the next call,
        `ModelError` where a layer is called from another thread. Whatever happens, every forward
        has ended when this returns, and its contexts are closed.
        """
        self._base = ThreadState.now(device_types(self._device))
        self._scheduler = getcurrent()
        self._runners = [self._runner(forward) for forward in forwards]
        self._numbers = {runner: number for number, runner in enumerate(self._runners)}
        try:
            with intercepted(self._layers, self._call):
                self._go(done)
        finally:
            self._end()

    def _runner(self, forward: Callable[[], Any]) -> greenlet:
        runner = greenlet(forward)
        runner.gr_context = contextvars.copy_context()
        return runner

    def _go(self, done: Callable[[int, Any], None]) -> None:
        while True:
            waiting = self._advance(done)
            self._check_order(waiting)
            if not self._barrier(waiting):
                return

    def _advance(self, done: Callable[[int, Any], None]) -> list[Arrival]:
        """Every forward on to its next layer, or to its end."""
        waiting = []
        for number, runner in enumerate(self._runners):
            if _ended(runner):
                continue
            arrived = runner.switch()
            if _ended(runner):
                done(number, arrived)
            else:
                waiting.append(arrived)
        return waiting

    def _check_order(self, waiting: list[Arrival]) -> None:
        if not waiting:
            return
        first = waiting[0]
        other = next((a for a in waiting if a.layer is not first.layer), None)
        if other is not None:
            raise OutOfOrderError(
                f"batch {first.runner} calls layer {first.layer.name} where batch {other.runner} "
                f"calls {other.layer.name}: {ELSE}"
            )
        if len(waiting) < len(self._runners):
            absent = {*range(len(self._runners))} - {a.runner for a in waiting}
            raise OutOfOrderError(
                f"batch {first.runner} calls layer {first.layer.name} where batch {min(absent)} "
                f"has ended: {ELSE}"
            )

    def _call(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        """In place of a layer: look at its input, wait for the others, run it."""
        runner = getcurrent()
        number = self._numbers.get(runner)
        if number is None:
            raise ModelError(
                f"layer {layer.name} is called from another thread: forwards cannot wait for each "
                "other there; use --method sequential or precise"
            )
        if self._ending:
            raise GreenletExit
        seen = self._look(number, layer, x)
        with left_as(self._base), doing("rest"):
            self._scheduler.switch(Arrival(number, layer, seen))
        return forward(x)

    def _end(self) -> None:
        """End every forward that still waits; its `with` blocks and `finally` clauses run."""
        self._ending = True
        for runner in self._runners:
            while runner and not runner.dead:
                try:
                    runner.throw(GreenletExit)
                except BaseException:  # how it ends does not matter any more
                    continue
        self._base.install()
        self._runners, self._numbers = [], {}


def _ended(runner: greenlet) -> bool:
    return bool(runner.dead)


ELSE = (
    "exact needs all batches to take one way through the model; use --method sequential or precise"
)
