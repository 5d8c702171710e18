"""What the time of a run goes into: by made-up clocks, where every second is known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnaudit.engine.layers import find_layers
from bnaudit.engine.lockstep import Arrival, Lockstep
from bnaudit.engine.stopwatch import (
    MOST_PENDING,
    DeviceClock,
    HostClock,
    RankTime,
    Stopwatch,
    doing,
    exchanging,
    run_time,
    running,
    timed,
)
from bnaudit.results.run_time import KINDS, Kind, RunTime, Spent


@dataclass
class Hand:
    """A clock that is moved by hand."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def stopwatch(hand: Hand) -> Iterator[Stopwatch]:
    with running(Stopwatch(HostClock(hand), hand)) as stopwatch:
        yield stopwatch


def test_work_inside_other_work_is_taken_off_it(hand: Hand, stopwatch: Stopwatch) -> None:
    hand.move(1)
    with doing("forward"):
        hand.move(10)
        for _ in range(3):
            with doing("moments"):
                hand.move(2)
                with doing("forward"):
                    hand.move(0.5)
        hand.move(4)
    hand.move(5)
    spent = stopwatch.spent().spent
    assert spent == Spent(forward=15.5, moments=6, rest=6)
    assert spent.whole == hand.now


def test_reading_is_data_and_what_is_done_with_a_batch_is_not(
    hand: Hand, stopwatch: Stopwatch
) -> None:
    def loader() -> Iterator[int]:
        hand.move(100)  # starting workers
        for number in range(4):
            hand.move(3)
            yield number
        hand.move(7)  # ending them

    found = []
    for number in timed(loader()):
        hand.move(1)
        found.append(number)
    assert found == [0, 1, 2, 3]
    assert stopwatch.spent().spent == Spent(data=100 + 4 * 3 + 7, rest=4)


def test_what_reading_raises_is_raised_and_the_kind_of_work_ends(
    hand: Hand, stopwatch: Stopwatch
) -> None:
    def loader() -> Iterator[int]:
        yield 0
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(timed(loader()))
    hand.move(3)
    assert stopwatch.spent().spent == Spent(rest=3)


class Work(nn.Module):
    """Takes so many seconds."""

    def __init__(self, hand: Hand, seconds: float) -> None:
        super().__init__()
        self.hand, self.seconds = hand, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.hand.move(self.seconds)
        return x


def test_forwards_that_take_turns_find_their_own_kind_again(
    hand: Hand, stopwatch: Stopwatch
) -> None:
    """In lockstep a forward is interrupted at every layer; all others go on in between."""
    model = nn.Sequential(
        Work(hand, 1), nn.BatchNorm1d(2), Work(hand, 10), nn.BatchNorm1d(2), Work(hand, 100)
    ).eval()

    def forward() -> Tensor:
        with doing("forward"):
            return model(torch.ones(4, 2))

    def look(*_: object) -> None:
        with doing("moments"):
            hand.move(0.25)

    def barrier(arrivals: list[Arrival]) -> bool:
        hand.move(1000)
        with doing("moments"):
            hand.move(0.5)
        return bool(arrivals)

    def done(*_: object) -> None:
        hand.move(10_000)

    Lockstep(find_layers(model), torch.device("cpu"), look, barrier).run([forward] * 3, done)
    spent = stopwatch.spent().spent
    assert spent.forward == 3 * 111
    assert spent.moments == 3 * 2 * 0.25 + 3 * 0.5
    assert spent.rest == 3 * 1000 + 3 * 10_000


def test_layers_that_run_in_other_threads_are_part_of_the_forward(
    hand: Hand, stopwatch: Stopwatch
) -> None:
    def layer() -> None:
        with doing("moments"):
            hand.move(3)

    with doing("forward"):
        hand.move(1)
        thread = threading.Thread(target=layer)
        thread.start()
        thread.join()
    assert stopwatch.spent().spent == Spent(forward=4)


def test_a_run_inside_another_has_a_stopwatch_of_its_own(hand: Hand, stopwatch: Stopwatch) -> None:
    with doing("forward"):
        with running(Stopwatch(HostClock(hand), hand)) as inner:
            with doing("data"):
                hand.move(2)
            found = inner.spent().spent
        hand.move(1)
    assert found == Spent(data=2)
    assert stopwatch.spent().spent == Spent(forward=3)


def test_where_nothing_is_timed_work_goes_on_as_it_is() -> None:
    with doing("forward"), exchanging():
        assert list(timed([1, 2])) == [1, 2]


# ---- a device that runs behind the host


@dataclass
class Device:
    """A stream that works through what it is given, in order, behind a host moved by hand."""

    hand: Hand
    free: float = 0.0
    events: int = 0
    waits: int = 0

    def put(self, seconds: float) -> None:
        self.free = max(self.free, self.hand.now) + seconds

    def event(self) -> Passing:
        self.events += 1
        return Passing(self)


@dataclass
class Passing:
    device: Device
    at: float = field(default=float("nan"))

    def record(self) -> None:
        self.at = max(self.device.free, self.device.hand.now)

    def query(self) -> bool:
        return self.device.hand.now >= self.at

    def synchronize(self) -> None:
        self.device.waits += 1
        self.device.hand.now = max(self.device.hand.now, self.at)

    def elapsed_time(self, later: Passing, /) -> float:
        assert self.query()
        assert later.query()
        return (later.at - self.at) * 1000


@pytest.fixture
def device(hand: Hand) -> Device:
    return Device(hand)


def on_device(device: Device) -> Stopwatch:
    return Stopwatch(DeviceClock(device.event), device.hand)


def four_batches(device: Device, loading: float, forward: float, moments: float) -> Spent:
    """Each is loaded by the host, and two layers' worth of work is handed to the device."""
    with running(on_device(device)) as stopwatch:
        for _ in range(4):
            with doing("data"):
                device.hand.move(loading)
            with doing("forward"):
                for _ in range(2):
                    device.put(forward / 2)
                    with doing("moments"):
                        device.put(moments / 2)
        return stopwatch.spent().spent


def test_a_loader_that_keeps_up_with_the_device_takes_no_time(device: Device) -> None:
    """While batch 1 is worked on, batch 2 is read; only the first one is waited for."""
    assert four_batches(device, 2, 8, 4) == Spent(data=2, forward=4 * 8, moments=4 * 4)


def test_a_loader_that_does_not_keep_up_is_waited_for_as_long_as_the_device_is_idle(
    device: Device,
) -> None:
    assert four_batches(device, 20, 8, 4) == Spent(data=20 + 3 * 8, forward=4 * 8, moments=4 * 4)


def test_work_that_is_launched_more_slowly_than_it_is_done_counts_where_it_is_launched(
    device: Device,
) -> None:
    with running(on_device(device)) as stopwatch:
        for _ in range(3):
            with doing("forward"):
                device.hand.move(5)
                device.put(1)
                with doing("moments"):
                    device.hand.move(2)
                    device.put(1)
        spent = stopwatch.spent().spent
    # Idle until the first kernel is there; the moments' own kernel ends behind the host's next
    # step, which has to launch for 4 more seconds.
    assert spent == Spent(forward=5 + 1 + 2 * (4 + 1), moments=3 * (1 + 1))


def test_marks_are_read_without_waiting_and_used_again(device: Device) -> None:
    """Nothing waits for the device before the end, and ten thousand marks need few events."""
    with running(on_device(device)) as stopwatch:
        for _ in range(5000):
            device.hand.move(1)
            with doing("forward"):
                device.put(0.5)
        assert device.waits == 0
        assert device.events <= MOST_PENDING + 1
        spent = stopwatch.spent().spent
    assert spent.forward == pytest.approx(2500)
    assert spent.whole == pytest.approx(device.hand.now)


Step = tuple[Kind, int, int]
steps = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30
)


@settings(deadline=None)
@given(steps)
def test_each_tick_goes_to_what_the_device_does_or_else_to_what_the_host_does(
    program: list[Step],
) -> None:
    """The oracle looks at every tick: the work that runs, or the host's step where none does."""
    device = Device(Hand())
    with running(on_device(device)) as stopwatch:
        for kind, host, work in program:
            with doing(kind):
                device.hand.move(host)
                device.put(work)
        spent = stopwatch.spent().spent

    hosts = [kind for kind, host, _ in program for _ in range(host)]
    works: dict[int, Kind] = {}
    now = free = 0
    for kind, host, work in program:
        now += host
        free = max(free, now)
        works |= dict.fromkeys(range(free, free + work), kind)
        free += work
    ticks = [works[t] if t in works else hosts[t] for t in range(max(free, now))]
    assert spent == Spent(*(float(ticks.count(kind)) for kind in KINDS))


def test_an_error_of_the_device_is_not_hidden_by_a_mark_that_fails(device: Device) -> None:
    class Failing(Passing):
        broken = False

        def record(self) -> None:
            if Failing.broken:
                raise RuntimeError("no mark")
            super().record()

    def forward() -> None:
        with doing("forward"):
            Failing.broken = True
            raise ValueError("the cause")

    clock = DeviceClock(lambda: Failing(device))
    with running(Stopwatch(clock, device.hand)), pytest.raises(ValueError, match="the cause"):
        forward()


# ---- several ranks


def test_the_rank_that_comes_last_waits_for_nobody() -> None:
    """Three collectives: rank 1 is late for the first two, rank 0 for the last."""
    ranks = [
        RankTime(Spent(forward=1, collectives=8), (4.0, 3.0, 1.0), "host"),
        RankTime(Spent(forward=7, collectives=4), (1.0, 1.0, 2.0), "host"),
    ]
    found = run_time(ranks, 100)
    assert found.ranks == (
        Spent(forward=1, collectives=3, waiting=5),
        Spent(forward=7, collectives=3, waiting=1),
    )
    assert found.wall_seconds == 11
    assert found.samples_per_second == 100 / 11
    assert found.seconds == Spent(forward=4, collectives=3, waiting=3)


def test_a_collective_is_noted_with_the_time_until_the_others_came(
    hand: Hand, stopwatch: Stopwatch
) -> None:
    for seconds in (2, 3):
        with exchanging():
            hand.move(seconds)
    assert stopwatch.spent() == RankTime(Spent(collectives=5), (2, 3), "host")


def test_one_process_neither_exchanges_nor_waits(hand: Hand, stopwatch: Stopwatch) -> None:
    with doing("forward"):
        hand.move(4)
    found = run_time([stopwatch.spent()], 8)
    assert found == RunTime(4, 8, 2, Spent(forward=4), (Spent(forward=4),))
