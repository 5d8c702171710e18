"""What ranks tell each other beside the figures: errors, progress, and that they are alive.

It stands in the store of the process group, so that it works while a collective does not.
"""

from __future__ import annotations

import base64
import pickle
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from torch.distributed import PrefixStore, distributed_c10d  # type: ignore[attr-defined]

from bnaudit.errors import BnauditError, RankError, one_line

BEAT = 1.0
"""Seconds between two signs of life."""

GRACE = 6.0
"""A rank that gives no sign of life for so many seconds is gone."""

LOOK = 0.05
"""Seconds between two looks at the board while a rank waits."""


class MessageBoard:
    """The board of `size` ranks, as `rank` sees it. `timeout`: seconds of waiting at most.

    Each board has a place of its own in the store: the n-th of every rank is one. Raises, wherever
    it is looked at, the error that a rank has posted since the last one.
    """

    def __init__(self, rank: int, size: int, timeout: float) -> None:
        store = distributed_c10d._get_default_store()
        try:
            boards = store.add(f"bnaudit/boards of rank {rank}", 1)
        except RuntimeError as error:
            raise RankError(
                f"the store that the ranks share does not answer: {one_line(error)}"
            ) from error
        self._store = PrefixStore(f"bnaudit/{boards}", store)
        self._rank, self._size, self._timeout = rank, size, timeout
        self._epoch = 0
        self._found: BaseException | None = None
        self._steps = self._beats_given = 0
        self._silent = False
        self._clerk = _Clerk(self._beat)

    def close(self, error: BaseException | None = None) -> None:
        """No more signs of life. `error`: why this rank goes, if anything is wrong.

        The first rank leaves last: the store may stand in its process, and others may still read.
        """
        with suppress(RankError):
            self._asked(lambda: self._store.set(f"left/{self._rank}", "1"))
            if self._rank == 0:
                came = {rank for rank, beat in enumerate(self._beats()) if beat}
                self._wait_for([f"left/{rank}" for rank in came.difference(_gone(error))], GRACE)
        self._clerk.close()

    def next_step(self) -> None:
        """The next collective begins."""
        self._steps += 1

    def add(self, key: str, number: int) -> int:
        """Add to a count that all ranks share; the sum."""
        self._raise_posted()
        return int(self._asked(lambda: self._store.add(key, number)))

    def meet(self) -> None:
        """Wait until every rank has come here."""
        self.next_step()
        epoch = self._epoch
        self._asked(lambda: self._store.set(f"{epoch}/here/{self._rank}", "1"))
        keys = [f"{epoch}/here/{rank}" for rank in range(self._size)]
        self.wait_until(lambda: bool(self._asked(lambda: self._store.check(keys))), lambda: None)

    def wait_until(self, done: Callable[[], bool], refresh: Callable[[], None]) -> None:
        """Wait; `refresh` is called now and then. Raises what is posted meanwhile, `RankError`."""
        start = last = time.monotonic()
        pause = 2e-5
        while not done():
            time.sleep(pause)
            pause = min(1.5 * pause, LOOK / 5)
            now = time.monotonic()
            if now - last < LOOK:
                continue
            last = now
            self._raise_posted()
            refresh()
            if now - start > self._timeout:
                raise self._who_is_late()

    def post(self, error: BaseException) -> BaseException:
        """The error that counts: of those that the ranks post, the first. It is posted once."""
        if self._found is None:
            own = f"{self._rank} {_packed(error, self._rank)}"
            try:
                key = f"{self._epoch}/error"
                posted = self._asked(lambda: self._store.compare_set(key, "", own).decode())
            except RankError:
                posted = own  # there is nobody to tell
            self._found = error if posted == own else _unpacked(posted, error)
        found, self._found = self._found, None
        self._epoch, self._steps = self._epoch + 1, 0
        return found

    def who_is_gone(self, otherwise: str) -> BaseException:
        """What was posted, or which rank gives no sign of life; where none is gone, `otherwise`."""
        try:
            before, start = self._beats(), time.monotonic()
            while time.monotonic() - start < GRACE:
                time.sleep(LOOK)
                self._raise_posted()
            after = self._beats()
        except BaseException as error:  # what was posted, the store's end, an interruption
            return error
        gone = [rank for rank in range(self._size) if before[rank] == after[rank]]
        if not gone:
            return RankError(otherwise)
        return RankError(
            f"{_ranks(gone)} no longer {'answers' if len(gone) == 1 else 'answer'}: killed, or out "
            "of memory? What its launcher (torchrun) prints says more",
            tuple(gone),
        )

    def told(self, error: BaseException, tell: Callable[[BaseException], None]) -> None:
        """The lowest rank that is alive tells the user; the others wait until it has.

        A launcher ends all ranks as soon as one has ended. Where the store is gone each tells.
        """
        gone = _gone(error)
        try:
            if self._rank != min(rank for rank in range(self._size) if rank not in gone):
                self._wait_for(["told"], 3 * GRACE)
                return
        except RankError:
            tell(error)
            return
        tell(error)
        with suppress(RankError):
            self._asked(lambda: self._store.set("told", "1"))

    def _wait_for(self, keys: list[str], seconds: float) -> None:
        """Until all of them stand on the board, or the time is over."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            if self._asked(lambda: self._store.check(keys)):
                return
            time.sleep(LOOK / 5)

    def _who_is_late(self) -> RankError:
        beats = self._beats()
        absent = [rank for rank, beat in enumerate(beats) if not beat]
        if absent:
            return RankError(
                f"{_ranks(absent)} did not come within {self._timeout:g} seconds: every rank has "
                'to make this call, or one alone with ranks="alone"; --rank-timeout allows more',
                tuple(absent),
            )
        own = (self._epoch, self._steps)
        late = [rank for rank, beat in enumerate(beats) if _place_of(beat) < own]
        return RankError(
            f"{_ranks(late) if late else 'another rank'} kept the others waiting for more than "
            f"{self._timeout:g} seconds: --rank-timeout allows more",
            tuple(late),
        )

    def _beats(self) -> list[str]:
        """The last sign of life of each rank; empty where there was none."""
        keys = [f"beat/{rank}" for rank in range(self._size)]

        def read() -> list[str]:
            return [self._store.get(k).decode() if self._store.check([k]) else "" for k in keys]

        return list(self._asked(read))

    def _beat(self) -> None:
        self._beats_given += 1
        beat = f"{self._beats_given} {self._epoch} {self._steps}"
        self._store.set(f"beat/{self._rank}", beat)

    def _raise_posted(self) -> None:
        key = f"{self._epoch}/error"
        if self._found is None and self._asked(lambda: self._store.check([key])):
            posted = self._asked(lambda: self._store.get(key).decode())
            self._found = _unpacked(posted, None)
        if self._found is not None:
            raise self._found

    def _asked(self, question: Callable[[], Any]) -> Any:
        """The store's answer. Raises `RankError` where there is none in time, from then on."""
        try:
            return self._clerk.ask(question).result(0.0 if self._silent else self._timeout)
        except (RuntimeError, TimeoutError) as error:
            self._silent = self._silent or isinstance(error, TimeoutError)
            said = one_line(error) if str(error) else f"for {self._timeout:g} seconds"
            raise RankError(
                f"the store that the ranks share no longer answers ({said}): is rank 0, or the "
                "launcher, gone?"
            ) from error


class _Clerk:
    """A thread of its own that asks the store, and calls `beat` now and then.

    A store whose process hangs never answers, and whoever asks it cannot be interrupted.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._questions = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="bnaudit ranks", daemon=True)
        self._thread.start()

    def ask(self, question: Callable[[], Any]) -> Future[Any]:
        """The answer, once there is one."""
        answer: Future[Any] = Future()
        self._questions.put((question, answer))
        return answer

    def close(self) -> None:
        """End the thread, unless it waits for a store that does not answer."""
        self._questions.put(None)
        self._thread.join(BEAT)

    def _work(self) -> None:
        due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                with suppress(RuntimeError):  # the store is gone; whoever asks is told so
                    self._beat()
                due = time.monotonic() + BEAT
            try:
                asked = self._questions.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                continue
            if asked is None:
                return
            question, answer = asked
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)


def _packed(error: BaseException, rank: int) -> str:
    """An error and its cause as text; one that is not meant for users as a `RankError`."""
    failed = RankError(f"rank {rank} failed: {one_line(error)}")
    sent = error
    if isinstance(error, Exception) and not isinstance(error, BnauditError):
        sent = failed
    for attempt in ((sent, error.__cause__), (sent, None), (failed, None)):
        try:
            data = pickle.dumps(attempt)
            pickle.loads(data)
        except Exception:  # of a class that cannot be sent
            continue
        return base64.b64encode(data).decode()
    raise AssertionError("an error of ours can be sent")


def _unpacked(posted: str, own: BaseException | None) -> BaseException:
    """The error of another rank, which is named where this rank does not raise the same."""
    rank, _, text = posted.partition(" ")
    error: BaseException
    error, error.__cause__ = pickle.loads(base64.b64decode(text))
    if isinstance(error, BnauditError) and not isinstance(error, RankError):
        if own is not None and str(own) == str(error):
            return own
        error.args = (f"rank {rank}: {error}",)
    return error


def _gone(error: BaseException | None) -> tuple[int, ...]:
    return error.gone if isinstance(error, RankError) else ()


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks))}"


def _place_of(beat: str) -> tuple[int, int]:
    """How far its rank has come: after how many errors, in which collective."""
    _, epoch, step = beat.split()
    return int(epoch), int(step)
