"""What ranks tell each other beside the figures: errors, progress, and that they are alive.

It stands in the store of the process group, so that it works while a collective does not.
"""

from __future__ import annotations

import base64
import pickle
import threading
import time
from collections.abc import Callable
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
    """The board `name` of `size` ranks, as `rank` sees it. `timeout`: seconds of waiting at most.

    Raises, wherever it is looked at, the error that a rank has posted since the last one.
    """

    def __init__(self, name: str, rank: int, size: int, timeout: float) -> None:
        self._store = PrefixStore(name, distributed_c10d._get_default_store())
        self._rank, self._size, self._timeout = rank, size, timeout
        self._epoch = 0
        self._found: BaseException | None = None
        self._steps = 0
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="bnaudit ranks", daemon=True)
        self._heart.start()

    def close(self) -> None:
        """No more signs of life."""
        self._closed.set()
        self._heart.join()

    def next_step(self) -> None:
        """The next collective begins."""
        self._steps += 1

    def add(self, key: str, number: int) -> int:
        """Add to a count that all ranks share; the sum."""
        self._raise_posted()
        return int(self._asked(lambda: self._store.add(key, number)))

    def meet(self) -> None:
        """Wait until every rank has come here."""
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
                posted = self._store.compare_set(f"{self._epoch}/error", "", own).decode()
            except RuntimeError:
                posted = own  # there is nobody to tell
            self._found = error if posted == own else _unpacked(posted, error)
        found, self._found = self._found, None
        self._epoch += 1
        return found

    def who_is_gone(self) -> BaseException:
        """After a connection broke: what was posted, or which rank gives no sign of life."""
        try:
            before, start = self._beats(), time.monotonic()
            while time.monotonic() - start < GRACE:
                time.sleep(LOOK)
                self._raise_posted()
            after = self._beats()
        except RankError as error:
            return error
        gone = [rank for rank in range(self._size) if before[rank] == after[rank]]
        if not gone:
            return RankError("the connection between the ranks broke: start the job again")
        return RankError(
            f"{_ranks(gone)} no longer {'answers' if len(gone) == 1 else 'answer'}: killed, or out "
            "of memory? The launcher's output says more",
            tuple(gone),
        )

    def told(self, error: BaseException, tell: Callable[[BaseException], None]) -> None:
        """The lowest rank that is alive tells the user; the others wait until it has.

        A launcher ends all ranks as soon as one has ended.
        """
        gone = error.gone if isinstance(error, RankError) else ()
        if self._rank == min(rank for rank in range(self._size) if rank not in gone):
            tell(error)
            self._store.set("told", "1")
            return
        start = time.monotonic()
        while not self._store.check(["told"]) and time.monotonic() - start < 3 * GRACE:
            time.sleep(LOOK)

    def _who_is_late(self) -> RankError:
        late = [rank for rank, beat in enumerate(self._beats()) if _steps_of(beat) < self._steps]
        return RankError(
            f"{_ranks(late) if late else 'another rank'} kept the others waiting for more than "
            f"{self._timeout:g} seconds: --rank-timeout allows more"
        )

    def _beats(self) -> list[str]:
        """The last sign of life of each rank; empty where there was none."""
        keys = [f"beat/{rank}" for rank in range(self._size)]

        def read() -> list[str]:
            return [self._store.get(k).decode() if self._store.check([k]) else "" for k in keys]

        return list(self._asked(read))

    def _beat(self) -> None:
        beats = 0
        while not self._closed.is_set():
            beats += 1
            try:
                self._store.set(f"beat/{self._rank}", f"{beats} {self._steps}")
            except RuntimeError:  # the store is gone; the main thread says so
                return
            self._closed.wait(BEAT)

    def _raise_posted(self) -> None:
        key = f"{self._epoch}/error"
        if self._found is None and self._asked(lambda: self._store.check([key])):
            posted = self._asked(lambda: self._store.get(key).decode())
            self._found = _unpacked(posted, None)
        if self._found is not None:
            raise self._found

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except RuntimeError as error:
            raise RankError(
                f"the store that the ranks share no longer answers ({one_line(error)}): is rank 0, "
                "or the launcher, gone?"
            ) from error


def _packed(error: BaseException, rank: int) -> str:
    """An error as text; one that is not meant for users as a `RankError` with its name."""
    sent = error
    if isinstance(error, Exception) and not isinstance(error, BnauditError):
        sent = RankError(f"rank {rank} failed: {one_line(error)}")
    try:
        data = pickle.dumps(sent)
        pickle.loads(data)
    except Exception:  # of a class that cannot be sent
        data = pickle.dumps(RankError(f"rank {rank} failed: {one_line(error)}"))
    return base64.b64encode(data).decode()


def _unpacked(posted: str, own: BaseException | None) -> BaseException:
    """The error of another rank, which is named where this rank does not raise the same."""
    rank, _, text = posted.partition(" ")
    error: BaseException = pickle.loads(base64.b64decode(text))
    if isinstance(error, BnauditError) and not isinstance(error, RankError):
        if own is not None and str(own) == str(error):
            return own
        error.args = (f"rank {rank}: {error}",)
    return error


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks))}"


def _steps_of(beat: str) -> int:
    return int(beat.split()[1]) if beat else 0
