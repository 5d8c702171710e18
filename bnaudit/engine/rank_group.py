"""The gloo group that the ranks of a job send each other tensors over, watched while they wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from bnaudit.engine.message_board import MessageBoard
from bnaudit.engine.stopwatch import exchanging
from bnaudit.errors import RankError

BROKEN = "the connection between the ranks broke: start the job again"


class RankGroup:
    """A gloo group of our own, as `rank` of `size` sees it; made once it is needed.

    After an error every rank leaves it, and the next collective makes it anew. A collective ends
    where the `board` says that another rank has failed or is gone, and after `timeout` seconds.
    Every rank calls the same collectives, in the same order, on tensors on the CPU. `refresh` is
    called now and then while this rank waits.
    """

    refresh: Callable[[], None]

    def __init__(self, rank: int, size: int, board: MessageBoard, timeout: float) -> None:
        self._rank, self._size = rank, size
        self._board, self._timeout = board, timeout
        self.refresh = lambda: None
        self._group: dist.ProcessGroup | None = None
        self._begun: dist.Work | None = None

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """The values of all ranks, by rank. They have one shape and dtype on all ranks."""
        found = [torch.empty_like(values) for _ in range(self._size)]
        self._run(lambda group: dist.all_gather(found, values, group=group, async_op=True))
        return found

    def fill(self, values: Tensor, rank: int) -> None:
        """The values of `rank` overwrite those of the others."""
        self._run(lambda group: dist.broadcast(values, rank, group=group, async_op=True))

    def broadcast(self, own: Tensor, rank: int, size: int) -> Tensor:
        """The `size` bytes of `rank`, uint8, on all of them; `own` counts on that rank alone."""
        values = own if rank == self._rank else torch.empty(size, dtype=torch.uint8, device="cpu")
        if size:
            self.fill(values, rank)
        return values

    def leave(self) -> None:
        """Also in the middle of a collective; of those that wait in it, ours that is left ends."""
        group, begun = self._group, self._begun
        self._group = self._begun = None
        if group is None:
            return
        with suppress(RuntimeError, ValueError):  # the caller may have destroyed all groups
            dist.destroy_process_group(group)
        if begun is not None and not begun.is_completed():
            # Whoever lets go of the group waits for it: for a rank that hangs, very long.
            left = threading.Thread(target=_wait_out, args=(group, begun), daemon=True)
            left.start()

    def _run(self, start: Callable[[dist.ProcessGroup], dist.Work | None]) -> None:
        """A collective, watched: it ends where another rank has failed, or is gone."""
        with exchanging():
            self._watched(start)

    def _watched(self, start: Callable[[dist.ProcessGroup], dist.Work | None]) -> None:
        if self._group is None:
            self._board.meet()
        self._board.next_step()
        try:
            if self._group is None:
                span = timedelta(seconds=self._timeout + 60)
                self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=span))
            work = self._begun = start(self._group)
            assert work is not None  # it is for ranks that are not in the group
            self._board.wait_until(work.is_completed, self.refresh)
            work.wait()
            self._begun = None
        except RuntimeError as error:  # how gloo says that a connection is gone
            gone = self._board.who_is_gone(BROKEN)
            raise gone from error if isinstance(gone, RankError) else gone.__cause__


def _wait_out(group: dist.ProcessGroup, begun: dist.Work) -> None:
    """Hold a group until what was begun in it has come to an end."""
    with suppress(RuntimeError):
        begun.wait()
