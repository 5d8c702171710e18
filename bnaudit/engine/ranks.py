"""The processes that share the work of one job: what each has seen becomes what all have seen.

Every rank runs the same code on batches of its own. All that travels is figures in float64 on the
CPU, so that gloo carries them whatever the forwards run on. What one rank raises all ranks raise.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bnaudit.engine.message_board import MessageBoard
from bnaudit.engine.packing import pack, unpack
from bnaudit.engine.rank_group import RankGroup
from bnaudit.errors import InputError

T = TypeVar("T")

Advance = Callable[[int], None]

TIMEOUT = 1800.0
"""Seconds that a rank waits for the others unless told otherwise: torch's own default for gloo."""

PADDED = 2**26
"""Bytes up to which what the ranks send is padded to one size: one collective instead of many."""

ENDED = "the launcher ended the job before its work was done"


class Ranks(Protocol):
    """The ranks of a job, seen from one of them: `rank` of `size`."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that prints and writes."""

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank. Every rank calls this, at the same place."""

    def each(self, value: T) -> Iterator[T]:
        """The same one after another, for what is too large to be held for all ranks at once."""

    def to_first(self, value: T) -> list[T]:
        """The values of all ranks on the first one; the others get nothing."""

    def gather_tensor(self, values: Tensor) -> list[Tensor]:
        """The same for float64 tensors on the CPU that have one shape on all ranks."""

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on the first rank, on all of them; it runs nowhere else."""

    def first_of(self, value: T | None) -> T | None:
        """The value of the first rank that has one, on all of them."""

    def as_one(self) -> AbstractContextManager[None]:
        """What is raised inside on one rank is raised on all; none leaves before all are through.

        Needed around every `try` that goes on after an error, and around the whole.
        """

    def sharing(self, device: torch.device) -> int:
        """How many ranks work on this rank's `device`, which they share the memory of."""

    def shared(self, advance: Advance) -> Advance:
        """Progress in samples: of this rank's share in, that of all ranks on the first one out."""


class Alone:
    """One process: nothing to share."""

    rank, size, is_first = 0, 1, True

    def gather(self, value: T) -> list[T]:
        """Its own value."""
        return [value]

    def each(self, value: T) -> Iterator[T]:
        """Its own value."""
        yield value

    def to_first(self, value: T) -> list[T]:
        """Its own value."""
        return [value]

    def gather_tensor(self, values: Tensor) -> list[Tensor]:
        """Its own values."""
        return [values]

    def from_first(self, make: Callable[[], T]) -> T:
        """Its own."""
        return make()

    def first_of(self, value: T | None) -> T | None:
        """Its own."""
        return value

    def as_one(self) -> AbstractContextManager[None]:
        """Nobody else."""
        return nullcontext()

    def sharing(self, device: torch.device) -> int:
        """Itself."""
        return 1

    def shared(self, advance: Advance) -> Advance:
        """Its own share is all."""
        return advance


ALONE: Ranks = Alone()


class Terminated(BaseException):
    """The launcher ends this rank, as it does when another one has failed."""


@contextmanager
def joined(
    which: Literal["all", "alone"] = "all",
    timeout: float = TIMEOUT,
    tell: Callable[[BaseException], None] | None = None,
) -> Iterator[Ranks]:
    """The ranks of the process group that has been initialised; `ALONE` where there is none.

    `which`: "alone" leaves the others out; `timeout`: seconds that one rank waits for another;
    `tell`: called on one rank with the error that ended the work, before any of them goes on.
    Inside, what one rank raises all raise. Raises `InputError` for another `which`.
    """
    if which not in ("all", "alone"):
        raise InputError(f'ranks is {which!r}: give "all" or "alone"')
    if which == "alone" or not (
        dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    ):
        yield ALONE
        return
    ranks = _Together(timeout)
    try:
        with ranks.as_one():
            yield ranks
    except BaseException as error:
        if tell is not None:
            ranks.tell(error, tell)
        ranks.close(error)
        raise
    ranks.close()


class _Together:
    """Several processes: values go over the group, errors and progress over the board."""

    def __init__(self, timeout: float) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._board = MessageBoard(self.rank, self.size, timeout)
        self._group = RankGroup(self.rank, self.size, self._board, timeout)
        self._agreed: BaseException | None = None
        self._bars = itertools.count()

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def close(self, error: BaseException | None = None) -> None:
        """The board is taken down, the group given back. `error`: why, if anything is wrong."""
        self._board.close(error)
        self._group.leave()

    # ---- collectives

    def gather(self, value: T) -> list[T]:
        """All of them at once."""
        return list(self.each(value))

    def each(self, value: T) -> Iterator[T]:
        """Pickled: ours are the only processes that these bytes come from."""
        return map(unpack, self._packed_of_all(value))

    def to_first(self, value: T) -> list[T]:
        """The others see them pass: gloo cannot be watched while it sends from one to another."""
        return [unpack(one) for one in self._packed_of_all(value) if self.is_first]

    def _packed_of_all(self, value: object) -> Iterator[Tensor]:
        """At once where they are small, else one after another."""
        own = pack(value)
        size = torch.tensor([own.numel()], dtype=torch.int64, device="cpu")
        sizes = [int(one) for one in self._group.all_gather(size)]
        largest = max(sizes)
        if largest * self.size <= PADDED:
            padded = torch.zeros(largest, dtype=torch.uint8, device="cpu")
            padded[: own.numel()] = own
            for one, length in zip(self._group.all_gather(padded), sizes, strict=True):
                yield one[:length]
            return
        for rank, length in enumerate(sizes):
            yield self._group.broadcast(own, rank, length)

    def gather_tensor(self, values: Tensor) -> list[Tensor]:
        """One collective."""
        return self._group.all_gather(values.contiguous())

    def from_first(self, make: Callable[[], T]) -> T:
        """The others wait."""
        with self.as_one():
            return self._sent(0, make)

    def first_of(self, value: T | None) -> T | None:
        """Sent by that rank alone."""
        rank = next((r for r, has in enumerate(self.gather(value is not None)) if has), None)
        return None if rank is None else self._sent(rank, lambda: value)

    def _sent(self, rank: int, make: Callable[[], T]) -> T:
        nothing = torch.zeros(0, dtype=torch.uint8, device="cpu")
        own = pack(make()) if rank == self.rank else nothing
        size = torch.tensor([own.numel()], dtype=torch.int64, device="cpu")
        self._group.fill(size, rank)
        return unpack(self._group.broadcast(own, rank, int(size)))  # type: ignore[no-any-return]

    # ---- errors

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """Posts what is raised; the first to be posted is raised on all ranks."""
        try:
            yield
            self._group.all_gather(torch.zeros(1, dtype=torch.float64, device="cpu"))
        except BaseException as error:
            if error is self._agreed:
                raise
            ended = isinstance(error, Terminated)
            known = self._board.who_is_gone(ENDED) if ended else error
            agreed = self._agreed = self._board.post(known)
            self._group.leave()
            self._group.refresh = lambda: None
            if agreed is error:
                raise
            raise agreed from agreed.__cause__ or error

    def tell(self, error: BaseException, how: Callable[[BaseException], None]) -> None:
        """Tell the user once, whichever ranks are left."""
        self._board.told(error, how)

    # ---- the rest

    def sharing(self, device: torch.device) -> int:
        """By host name and device: a rank that sees one GPU alone calls it number 0."""
        here = (socket.gethostname(), device.type, _identity(device))
        return self.gather(here).count(here)

    def shared(self, advance: Advance) -> Advance:
        """Also where a rank notices, batch by batch, that another one has failed."""
        key, shown = f"bar/{next(self._bars)}", 0

        def show(total: int) -> None:
            nonlocal shown
            if total > shown:
                more, shown = total - shown, total
                advance(more)

        def advanced(samples: int) -> None:
            total = self._board.add(key, samples)
            if self.is_first:
                show(total)

        if self.is_first:
            self._group.refresh = lambda: show(self._board.add(key, 0))
        return advanced


def _identity(device: torch.device) -> str:
    """What tells a device from others of the host, whatever number it has in this process."""
    if device.type != "cuda":
        return str(device.index)
    index = device.index if device.index is not None else torch.cuda.current_device()
    return str(getattr(torch.cuda.get_device_properties(index), "uuid", index))
