"""Population statistics from mini-batches, for comparison: PreciseBN and the framework's EMA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.layers import BNLayer, counter
from bnaudit.engine.population import Account, Calibration, Population, Result, Seen, Statistics
from bnaudit.engine.state import Applied, intercepted
from bnaudit.errors import InputError
from bnaudit.stats.kernels import RunMoments
from bnaudit.stats.moments import Moments, pool


def precise(work: Calibration) -> Result:
    """One pass with mini-batch statistics in every layer, their moments pooled over the batches by
    the law of total variance (Wu & Johnson 2021, section 3, PreciseBN). Depends on the batch size.
    """
    account = Account(work)
    seen = _mini_batch_pass(work, account, lambda layer, runs: runs.whole())
    result = Result()
    called = work.ranks.gather([layer.name for layer in seen])
    by_name = {layer.name: layer for layer in work.layers}
    for name in dict.fromkeys(name for share in called for name in share):
        layer = by_name[name]
        result.populations[layer] = account.population(layer, seen.get(layer, []))
    result.together(work.ranks)
    return result


def ema(work: Calibration, momentum: float | None) -> Result:
    """The framework's own rule: m ← (1 − momentum)·m + momentum·batch, from the estimates on.

    The variance is the unbiased one, as in `torch.nn.BatchNorm2d`. `momentum` None takes each
    layer's own, and where that is None as well the cumulative average. The batches follow one
    another: `InputError` on several ranks.
    """
    if work.ranks.size > 1:
        raise InputError(
            "--method ema goes through the batches one after another: start it without torchrun, "
            "or take --method exact or precise"
        )
    account, running = Account(work), _Ema(momentum)
    seen = _mini_batch_pass(work, account, running.after)
    result = Result()
    for layer, inputs in seen.items():
        groups = account.population(layer, inputs).groups
        updated = running.of.get(layer)
        statistics = work.rule(layer, *updated) if updated is not None else None
        result.populations[layer] = Population(groups, statistics)
    return result


@dataclass(frozen=True)
class MovingAverages:
    """The running statistics after each of several momenta, and how often each layer's moved.

    Layers that never moved, for single values a channel, are in neither.
    """

    by_momentum: list[dict[BNLayer, Statistics]]
    updates: dict[BNLayer, int]


def ema_of_each(work: Calibration, momenta: Sequence[float]) -> MovingAverages:
    """The running statistics that `ema` would give with each of the momenta, in one pass.

    In train mode a mini-batch is normalised by its own moments, so that the forwards, and what the
    layers see, are the same for all momenta.
    """
    running = [_Ema(momentum) for momentum in momenta]

    def update(layer: BNLayer, runs: RunMoments) -> Statistics:
        batch = _pooled(runs)
        for one in running:
            one.update(layer, batch)
        return batch.mean[0], batch.var[0]

    _mini_batch_pass(work, Account(work), update)
    statistics = [
        {
            layer: statistics
            for layer, updated in one.of.items()
            if (statistics := work.rule(layer, *updated)) is not None
        }
        for one in running
    ]
    return MovingAverages(statistics, running[0].updates if running else {})


class _Ema:
    """The running statistics of each layer."""

    def __init__(self, momentum: float | None) -> None:
        self.of: dict[BNLayer, Statistics] = {}
        self._momentum = momentum
        self.updates: dict[BNLayer, int] = {}

    def after(self, layer: BNLayer, runs: RunMoments) -> Statistics:
        """Note one mini-batch; its own statistics, by which it is normalised."""
        batch = _pooled(runs)
        self.update(layer, batch)
        return batch.mean[0], batch.var[0]

    def update(self, layer: BNLayer, batch: Moments) -> None:
        """One mini-batch, as a single part."""
        n = float(batch.count.item())
        if layer not in self.of:
            mean, var = (t.detach().to("cpu", torch.float64) for t in layer.estimated)
            self.of[layer] = (mean, var)
        mean, var = self.of[layer]
        self.updates[layer] = self.updates.get(layer, 0) + 1
        momentum = self._momentum if self._momentum is not None else layer.momentum
        tracked = (counter(layer) or 0) + self.updates[layer]
        share = 1 / tracked if momentum is None else momentum
        unbiased = batch.var[0] * n / (n - 1)
        self.of[layer] = mean.lerp(batch.mean[0], share), var.lerp(unbiased, share)


def _pooled(runs: RunMoments) -> Moments:
    """All runs as a single part, on the CPU. Waits for the device."""
    counts = torch.tensor(runs.counts, dtype=torch.float64, device="cpu")
    return pool(Moments(counts, runs.mean.to("cpu").double(), runs.m2.to("cpu").double()))


def _mini_batch_pass(
    work: Calibration,
    account: Account,
    normalise_by: Callable[[BNLayer, RunMoments], tuple[Tensor, Tensor]],
) -> dict[BNLayer, list[Seen]]:
    """One pass; `normalise_by(layer, moments)` says at every call by which mean and variance.

    Single values a channel are passed over.
    """
    seen: dict[BNLayer, list[Seen]] = {}
    for batch in work.batches:

        def normalise(layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
            inputs = seen.setdefault(layer, [])
            one = account.look(batch, layer, x)  # noqa: B023 - of this turn
            if one is None or sum(one.moments.counts) < 2:
                return forward(x)
            inputs.append(one)
            with Applied({layer: normalise_by(layer, one.moments)}):
                return forward(x)

        with intercepted(work.layers, normalise):
            work.forward(batch)
        work.progress(1)
    return seen
