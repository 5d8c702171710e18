"""What the time of a run goes into: measured where the work is done, about half a microsecond a
switch.

Exclusive: a kind of work inside another is taken off the outer one. Which run is timed, and what it
is doing, belongs to the context (`contextvars`), of which every greenlet has its own: forwards in
lockstep take turns, and each finds its own kind again. Time that has passed goes to the kind in
force *when the next mark is made*, so that no switch of greenlets needs to be told.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import replace
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch

from bnaudit.results.run_time import KINDS, Kind, RunTime, Spent

T = TypeVar("T")

MOST_PENDING = 256
"""So many marks may be on their way on a device before those that have passed are read: the layers
of a forward or two."""


class Clock(Protocol):
    """Adds up the time between marks by kind: the host's time, or that of a device."""

    whose: Literal["host", "device"]

    def mark(self, kind: Kind) -> None:
        """What was done since the last mark was of this kind."""

    def seconds(self) -> dict[Kind, float]:
        """Of every kind, up to the last mark. May wait for a device."""


class HostClock:
    """The time of the process: right where a call returns when its work is done, as on the CPU."""

    whose: Literal["host", "device"] = "host"

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
        self._last = now()

    def mark(self, kind: Kind) -> None:
        """What was done since the last mark was of this kind."""
        now = self._now()
        self._seconds[kind] += now - self._last
        self._last = now

    def seconds(self) -> dict[Kind, float]:
        """Of every kind, up to the last mark."""
        return dict(self._seconds)


class Event(Protocol):
    """A mark in a device's stream, as `torch.cuda.Event` with timing."""

    def record(self) -> None:
        """Put it behind all work that the stream has been given."""

    def query(self) -> bool:
        """Whether the stream has come past it."""

    def synchronize(self) -> None:
        """Wait until it has."""

    def elapsed_time(self, later: Event, /) -> float:
        """Milliseconds from this one to a later one, both passed."""


class DeviceClock:
    """The time of a device's stream, to which the host hands work without waiting for it.

    A mark is an event in the stream. Between two of them the stream works on what it was given
    there; where it runs dry before the second one has been put in, then the host is still busy
    between the same two. So each stretch of the stream's time goes to the kind that the device was
    at work on, or had to wait for: reading counts as far as the device was idle meanwhile. Events
    are read when they have passed: nothing waits for them before `seconds`.
    """

    whose: Literal["host", "device"] = "device"

    def __init__(self, event: Callable[[], Event]) -> None:
        self._make = event
        self._seconds: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
        self._spare: list[Event] = []
        self._last = self._recorded()
        self._pending: deque[tuple[Event, Kind]] = deque()

    def mark(self, kind: Kind) -> None:
        """What was put into the stream since the last mark was of this kind."""
        self._pending.append((self._recorded(), kind))
        if len(self._pending) >= MOST_PENDING:
            self._read_passed()

    def seconds(self) -> dict[Kind, float]:
        """Of every kind, up to the last mark. Waits until the stream has come past it."""
        if self._pending:
            self._pending[-1][0].synchronize()
        self._read_passed()
        return dict(self._seconds)

    def _recorded(self) -> Event:
        event = self._spare.pop() if self._spare else self._make()
        event.record()
        return event

    def _read_passed(self) -> None:
        while self._pending and self._pending[0][0].query():
            event, kind = self._pending.popleft()
            self._seconds[kind] += self._last.elapsed_time(event) / 1000
            self._spare.append(self._last)
            self._last = event


class _CudaEvent:
    """An event of one stream."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._event = torch.cuda.Event(enable_timing=True)

    def record(self) -> None:
        self._event.record(self._stream)

    def query(self) -> bool:
        return bool(self._event.query())

    def synchronize(self) -> None:
        self._event.synchronize()

    def elapsed_time(self, later: Event, /) -> float:
        assert isinstance(later, _CudaEvent)
        return float(self._event.elapsed_time(later._event))


class Stopwatch:
    """What a run has spent its time on since this was made; `now` is the host's time."""

    def __init__(self, clock: Clock, now: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._now = clock, now
        self._started = now()
        self._exchanges: list[float] = []
        self.at = {kind: _Now(self, kind) for kind in KINDS}

    @classmethod
    def on(cls, device: torch.device) -> Stopwatch:
        """In the time of `device` where it runs behind the host: CUDA, on its current stream.

        Other devices are timed by the host.
        """
        if device.type != "cuda":
            return cls(HostClock())
        stream = torch.cuda.current_stream(device)
        return cls(DeviceClock(lambda: _CudaEvent(stream)))

    def mark(self, kind: Kind) -> None:
        """The time since the last mark was of this kind."""
        self._clock.mark(kind)

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """One collective; how long it takes on this rank is noted."""
        began = self._now()
        with doing("collectives"):
            yield
        self._exchanges.append(self._now() - began)

    def spent(self) -> RankTime:
        """Up to now, in seconds. Waits for the device."""
        now = _now.get()
        self.mark(now.kind if now is not None and now.stopwatch is self else "rest")
        seconds = self._clock.seconds()
        del seconds["rest"]  # what is left: the device's time begins and ends inside the host's
        wall = self._now() - self._started
        rest = max(0.0, wall - sum(seconds.values()))
        return RankTime(Spent(**seconds, rest=rest), tuple(self._exchanges), self._clock.whose)


class RankTime(NamedTuple):
    """What one rank spent, waiting for others still among its `collectives`.

    `exchanges`: the seconds of each collective, in the order that is the same on all ranks.
    """

    spent: Spent
    exchanges: tuple[float, ...]
    clock: Literal["host", "device"]


class _Now(NamedTuple):
    stopwatch: Stopwatch
    kind: Kind


_now: ContextVar[_Now | None] = ContextVar("bnaudit_stopwatch", default=None)
"""None where nothing is timed, and in other threads: a forward that runs layers in threads of its
own is `forward` as a whole."""


@contextmanager
def running(stopwatch: Stopwatch) -> Iterator[Stopwatch]:
    """Inside, what is done is put down to `stopwatch`."""
    token = _now.set(stopwatch.at["rest"])
    try:
        yield stopwatch
    finally:
        _now.reset(token)


class doing:  # noqa: N801 - reads as the statement that it is: with doing("data")
    """Inside this context the time is of that kind, except for what is done of another."""

    __slots__ = ("_kind", "_token")

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._token: Token[_Now | None] | None = None

    def __enter__(self) -> None:
        now = _now.get()
        if now is not None:
            now.stopwatch.mark(now.kind)
            self._token = _now.set(now.stopwatch.at[self._kind])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is None:
            return
        now = _now.get()
        # A device that failed takes no marks, and its own error is the one to tell.
        if now is not None and not isinstance(error, Exception):
            now.stopwatch.mark(now.kind)
        _now.reset(self._token)
        self._token = None


def exchanging() -> AbstractContextManager[None]:
    """One collective: every rank comes here, and none leaves before all have come."""
    now = _now.get()
    return now.stopwatch.exchange() if now is not None else nullcontext()


def timed(batches: Iterable[T]) -> Iterator[T]:
    """The same, with the time until each one is there as `data`."""
    with doing("data"):
        iterator = iter(batches)
    while True:
        with doing("data"):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def run_time(ranks: Sequence[RankTime], samples: int) -> RunTime:
    """The time of a run from that of its ranks, for `samples` samples of all of them."""
    return RunTime.of(without_waiting(ranks), samples, ranks[0].clock)


def without_waiting(ranks: Sequence[RankTime]) -> list[Spent]:
    """What each rank spent, with waiting for the others told apart from its collectives.

    In every collective the rank that comes last waits for nobody: what it takes there is the
    exchange itself, and what others take beyond that is waiting. On a device's time the two share
    what the device had to wait for.
    """
    exchange = [min(taken) for taken in zip(*(one.exchanges for one in ranks), strict=False)]
    found = []
    for one in ranks:
        taken = sum(one.exchanges)
        share = min(1.0, sum(exchange) / taken) if taken > 0 else 1.0
        both = one.spent.collectives
        found.append(replace(one.spent, collectives=both * share, waiting=both * (1 - share)))
    return found
