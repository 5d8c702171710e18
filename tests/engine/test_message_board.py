"""What ranks tell each other through the store: errors, signs of life, who is late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed import HashStore, distributed_c10d

from bnaudit.engine.message_board import MessageBoard
from bnaudit.errors import InputError, ModelError, NonFiniteError, RankError


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.Store:
    """In the place of the store of a job; the ranks are threads of this process."""
    made = HashStore()
    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: made)
    return made


@contextmanager
def boards(size: int, timeout: float = 10.0, present: int | None = None) -> Iterator[list[Any]]:
    made = [MessageBoard(rank, size, timeout) for rank in range(present or size)]
    try:
        yield made
    finally:
        for board in reversed(made):
            board.close()


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """What they return or raise, run at the same time."""
    found: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        try:
            found[index] = calls[index]()
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def forever() -> bool:
    return False


def nothing() -> None:
    pass


def test_the_first_error_counts_on_all_and_names_its_rank_on_the_others(store: dist.Store) -> None:
    with boards(3) as (first, second, third):
        error = InputError("bad.png")
        assert second.post(error) is error
        for other in (first, third):
            with pytest.raises(InputError, match=r"^rank 1: bad\.png$") as raised:
                other.wait_until(forever, nothing)
            assert other.post(raised.value) is raised.value
        late = NonFiniteError("layer a", layer="a", batch=3)
        assert third.post(late) is late  # after it nothing stands in the way of another one
        with pytest.raises(NonFiniteError) as raised:
            first.add("count", 1)
        assert (raised.value.layer, raised.value.batch) == ("a", 3)


def test_an_error_that_both_raise_is_named_after_nobody(store: dist.Store) -> None:
    with boards(2) as (first, second):
        own, same = ModelError("no BatchNorm layer"), ModelError("no BatchNorm layer")
        assert first.post(own) is own
        assert second.post(same) is same


def test_an_error_that_cannot_be_sent_is_quoted_and_a_cause_goes_with_it(store: dist.Store) -> None:
    class Local(Exception):
        pass

    with boards(2) as (first, second):
        first.post(Local("deep inside"))
        with pytest.raises(RankError, match="rank 0 failed: Local: deep inside"):
            second.add("count", 1)
    with boards(2) as (first, second):
        error = ModelError("the model cannot take it")
        error.__cause__ = ValueError("why")
        first.post(error)
        with pytest.raises(ModelError) as raised:
            second.add("other", 1)
        assert repr(raised.value.__cause__) == "ValueError('why')"


def test_a_rank_that_never_came_and_one_that_stays_behind_are_named(store: dist.Store) -> None:
    with boards(3, timeout=0.4, present=2) as (first, second):
        for error in together([first.meet, second.meet]):
            assert isinstance(error, RankError)
            assert str(error).startswith("rank 2 did not come within 0.4 seconds: every rank has")
            assert error.gone == (2,)


def test_a_rank_that_stays_behind_is_named(store: dist.Store) -> None:
    with boards(2, timeout=1.5) as (first, second):
        together([first.meet, second.meet])
        first.next_step()
        with pytest.raises(RankError, match=r"^rank 1 kept the others waiting for more than 1\.5"):
            first.wait_until(forever, nothing)


def test_a_rank_without_signs_of_life_is_gone(
    store: dist.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnaudit.engine.message_board.GRACE", 2.5)
    with boards(3, timeout=1.0) as (first, second, third):
        time.sleep(0.2)
        second.close()
        gone = first.who_is_gone("none is")
        assert isinstance(gone, RankError)
        assert gone.gone == (1,)
        assert "rank 1 no longer answers: killed, or out of memory?" in str(gone)
        posted = InputError("bad.png")
        third.post(posted)
        assert str(first.who_is_gone("none is")) == "rank 2: bad.png"  # rather than a guess


def test_the_lowest_rank_that_is_left_tells_once(store: dist.Store) -> None:
    said: list[str] = []
    with boards(3) as (_, second, third):
        error = RankError("rank 0 no longer answers", (0,))
        calls = [lambda: third.told(error, lambda e: said.append(f"2 {e}"))]
        together([*calls, lambda: second.told(error, lambda e: said.append(f"1 {e}"))])
    assert said == ["1 rank 0 no longer answers"]


class Silent:
    """A store whose process hangs, or is gone."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.answer()


def test_a_store_that_hangs_or_is_gone_holds_nobody_up(store: dist.Store) -> None:
    hanging = threading.Event()

    def gone() -> Any:
        raise RuntimeError("Connection reset by peer")

    for answer, said in ((hanging.wait, "for 0.5 seconds"), (gone, "Connection reset by peer")):
        board = MessageBoard(1, 2, 0.5)
        start, told = time.monotonic(), []
        board._store = Silent(answer)  # type: ignore[assignment]
        with pytest.raises(RankError, match=said) as raised:
            board.add("count", 1)
        assert "is rank 0, or the launcher, gone?" in str(raised.value)
        assert board.post(raised.value) is raised.value
        board.told(raised.value, told.append)
        assert told == [raised.value]  # nobody else can be relied on to say it
        board.close()
        assert time.monotonic() - start < 5
    hanging.set()


def test_the_first_rank_leaves_last_and_no_thread_stays(store: dist.Store) -> None:
    left: list[int] = []

    def leave(board: Any, rank: int) -> None:
        time.sleep(0.4 * rank)
        board.close()
        left.append(rank)

    made = [MessageBoard(rank, 3, 10.0) for rank in range(3)]
    together([lambda r=rank: leave(made[r], r) for rank in range(3)])  # type: ignore[misc]
    assert left == [1, 2, 0] or left == [1, 0, 2]
    assert not [t for t in threading.enumerate() if t.name == "bnaudit ranks"]


def test_counts_are_those_of_all_ranks(store: dist.Store) -> None:
    store.set_timeout(timedelta(seconds=5))
    with boards(2) as (first, second):
        assert (first.add("samples", 3), second.add("samples", 4), first.add("samples", 0)) == (
            3,
            7,
            7,
        )
