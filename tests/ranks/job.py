"""Helpers: one function in several processes of one torch.distributed job."""

from __future__ import annotations

import multiprocessing
import pickle
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

_FORKING = multiprocessing.get_context("fork")  # torch is there already: no seconds of import


def on_ranks(size: int, work: Callable[[int], Any], seconds: float = 120) -> list[Any]:
    """What `work(rank)` returns on each of `size` ranks, by rank. What it raises is returned."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = _FORKING.Pipe(duplex=False)
        process = _FORKING.Process(target=_one, args=(rank, size, port, work, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return [
            _answer(pipe, process, seconds) for pipe, process in zip(pipes, processes, strict=True)
        ]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(pipe: Connection, process: Any, seconds: float) -> Any:
    if not pipe.poll(seconds):
        raise TimeoutError(f"a rank gave no answer within {seconds:g} seconds")
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        process.join()
        return process.exitcode


def _one(rank: int, size: int, port: int, work: Callable[[int], Any], pipe: Connection) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{port}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=60),
        )
    try:
        answer = work(rank)
    except BaseException as error:
        traceback.print_exc()
        answer = error
    pipe.send_bytes(pickle.dumps(answer))
    pipe.close()
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()
