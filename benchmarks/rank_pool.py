"""Processes that work as the ranks of one job, or each for itself, in turn. One thread each.

They are started once, and are one process group for as long as they live, as under `torchrun`.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch
import torch.distributed as dist

_STARTING = multiprocessing.get_context("forkserver")  # CUDA does not survive a fork
_STARTING.set_forkserver_preload(
    ["torch.distributed", "bnaudit.verbs.measure", "bnaudit.verbs.recalibrate"]
)

Setup = Callable[[torch.device], Any]
"""What a process makes once, on its device, before any turn."""

Which = Literal["all", "alone"]
"""Who shares the work: what bnaudit's verbs take as `ranks`."""

Work = Callable[[Any, Which], Any]
"""What it does in a turn with what it made."""

TOO_LONG = timedelta(minutes=10)
"""One rank waits so long for another."""


@dataclass(frozen=True)
class Part:
    """What one process did in a turn: its answer, and the processor's seconds that it took."""

    answer: Any
    processor_seconds: float


@dataclass(frozen=True)
class Turn:
    """What several processes did at once, in `seconds` from their start to the end of the last."""

    seconds: float
    parts: list[Part]

    @property
    def processor_seconds(self) -> float:
        """Of the process that took most: what the turn takes where every process has a core."""
        return max(part.processor_seconds for part in self.parts)


class RankPool:
    """A context: one process for each of `devices`, with what `setup` makes there.

    Raises `RuntimeError` with what a process raised.
    """

    def __init__(self, setup: Setup, devices: Sequence[torch.device]) -> None:
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._pipes: list[Connection] = []
        self._processes = []
        for rank, device in enumerate(devices):
            ours, theirs = _STARTING.Pipe()
            process = _STARTING.Process(
                target=_work,
                args=(setup, device, rank, len(devices), self._store.port, theirs),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        _answers(self._pipes)

    def __enter__(self) -> RankPool:
        return self

    def __exit__(self, *args: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def together(self, work: Work) -> Turn:
        """All processes as the ranks of one job."""
        return self._turn(self._pipes, work, "all")

    def apart(self, work: Work) -> Turn:
        """All processes at once, each for itself: nothing is shared but the machine."""
        return self._turn(self._pipes, work, "alone")

    def alone(self, work: Work) -> Turn:
        """The first process, and no other."""
        return self._turn(self._pipes[:1], work, "alone")

    def _turn(self, pipes: list[Connection], work: Work, which: Which) -> Turn:
        start = time.perf_counter()
        for pipe in pipes:
            pipe.send((work, which))
        parts = _answers(pipes)
        return Turn(time.perf_counter() - start, parts)


def _answers(pipes: list[Connection]) -> list[Any]:
    answers = [pipe.recv() for pipe in pipes]
    for answer in answers:
        if isinstance(answer, _Failed):
            raise RuntimeError(f"a process failed:\n{answer.trace}")
    return answers


@dataclass(frozen=True)
class _Failed:
    trace: str


def _work(
    setup: Setup, device: torch.device, rank: int, size: int, port: int, pipe: Connection
) -> None:
    try:
        torch.set_num_threads(1)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        store = dist.TCPStore("127.0.0.1", port, is_master=False)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TOO_LONG)
        made = setup(device)
        pipe.send("ready")
        while True:
            work, which = pipe.recv()
            before = time.process_time()
            answer = work(made, which)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            pipe.send(Part(answer, time.process_time() - before))
    except EOFError:
        return
    except BaseException:
        pipe.send(_Failed(traceback.format_exc()))
