"""What it costs that a layer has one set of statistics for several calls in a forward."""

from __future__ import annotations

from dataclasses import dataclass

from bnaudit.results.change import Change
from bnaudit.results.layers import Estimate
from bnaudit.results.scores import Scores


@dataclass(frozen=True)
class CallStatistics:
    """One call of a layer in a forward, every layer upstream normalising by statistics of its own
    for each call.

    `count`: elements a channel. `from_shared`: the ESM that the statistics of all calls together
    have at this one.
    """

    call: int
    count: int
    from_shared: Estimate | None = None


@dataclass(frozen=True)
class SharedLayer:
    """A layer that is called several times in a forward, with each of its calls."""

    name: str
    calls: tuple[CallStatistics, ...]


@dataclass(frozen=True)
class Sharing:
    """One set of exact statistics for all calls against one set a call, on the same samples.

    `shared`, `separate`: the network under either (agreement, KL and relative RMS difference of
    `separate` are from `shared`); `accuracy` and `loss`: separate − shared; `p_value`: McNemar's
    exact two-sided one. Over the verification data of all domains. `note`: why it could not be
    tried, where it could not.
    """

    layers: tuple[SharedLayer, ...] = ()
    shared: Scores | None = None
    separate: Scores | None = None
    accuracy: Change | None = None
    loss: Change | None = None
    p_value: float | None = None
    note: str | None = None
