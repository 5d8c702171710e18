"""The processes that `torchrun`, or another launcher of PyTorch, started for one command."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bnaudit.errors import BnauditError, InputError, one_line

if TYPE_CHECKING:
    from bnaudit.engine.ranks import Ranks

BUG = 3
INTERRUPTED = 130

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank_and_size() -> tuple[int, int]:
    """This process's rank, and how many there are; (0, 1) where no launcher says otherwise.

    Raises `InputError` where what it says is no number.
    """
    if not all(os.environ.get(name) for name in _NEEDED):
        return 0, 1
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError as error:
        raise InputError(f"RANK and WORLD_SIZE in the environment: {error}") from error


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    try:
        return rank_and_size()[0] == 0
    except InputError:
        return True


@contextmanager
def launched(timeout: float) -> Iterator[Ranks]:
    """The ranks of this command. What ends one of them ends all; one of them says why.

    `timeout`: seconds that they wait for each other.
    """
    from bnaudit.engine import ranks

    rank, size = rank_and_size()
    if size == 1:
        yield ranks.ALONE
        return
    _join_group(rank, timeout)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with ranks.joined(timeout=timeout, tell=_tell) as together:
            yield together
    except (Exception, KeyboardInterrupt) as error:
        if not isinstance(error, BnauditError | KeyboardInterrupt):
            traceback.print_exc()
        sys.exit(_exit_code(error))
    import torch.distributed as dist

    dist.destroy_process_group()


def _join_group(rank: int, timeout: float) -> None:
    """Each rank of a machine takes a GPU of its own, where there are any."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", rank))
        torch.cuda.set_device(local % torch.cuda.device_count())
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"rank {rank} does not find the others at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']}: {one_line(error)}"
        ) from error


def _terminated(number: int, frame: Any) -> None:
    from bnaudit.engine.ranks import Terminated

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise Terminated


def _tell(error: BaseException) -> None:
    from bnaudit.report.neutral import neutral

    if isinstance(error, KeyboardInterrupt):
        said = "interrupted"
    elif isinstance(error, BnauditError):
        said = f"error: {neutral(' '.join(str(error).split()))}"
    else:
        return  # a bug: this rank prints its traceback
    print(said, file=sys.stderr, flush=True)  # noqa: T201


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, BnauditError) else BUG
