"""The processes that `torchrun`, or another launcher of PyTorch, started for one command."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bnaudit.cli.rank import rank_and_size
from bnaudit.errors import BnauditError, InputError, one_line

if TYPE_CHECKING:
    from bnaudit.engine.ranks import Ranks

BUG = 3
INTERRUPTED = 130


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
        with ranks.joined(timeout=timeout, tell=_tell) as together, _bugs_shown():
            yield together
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(_exit_code(error))
    import torch.distributed as dist

    dist.destroy_process_group()


@contextmanager
def _bugs_shown() -> Iterator[None]:
    """On the rank that has one, and before the others end: the launcher ends it as they do."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, BnauditError):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            traceback.print_exc()
        raise


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
    if not isinstance(sys.exc_info()[1], BnauditError | KeyboardInterrupt):  # it is ending already
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
