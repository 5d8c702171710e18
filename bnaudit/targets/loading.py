"""Processes that load data: how many there should be, and what to say when one dies."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from bnaudit.errors import InputError
from bnaudit.targets.data import DataTarget
from bnaudit.targets.encoded import EncodedImages
from bnaudit.targets.messages import one_line
from bnaudit.targets.samples import Loaded, Readable

MOST_WORKERS = 8
"""More rarely help one model, and each holds batches in memory."""

WORTH_FORKING = 2.0
"""Seconds of loading in one pass from which processes are worth their start, when forked."""

WORTH_SPAWNING = 60.0
"""The same where each process has to import everything anew, in every pass."""

PREFETCHED = 2
"""Batches that PyTorch has each process load ahead."""

_PROBED = 3
_SHARED = Path("/dev/shm")


def automatic_workers(target: DataTarget, samples: int | None, batch_size: int) -> int:
    """How many processes should load `samples` of a target (None: all), in one pass.

    What the user's DataLoader says. Else none, unless the data are encoded images (arrays lie in
    memory, and a user's own data set may not bear to be forked) of which some samples, read to
    see, take so long that starting processes pays: then one for each core but one, at most
    `MOST_WORKERS`, and no more than shared memory has room for. Processes of torchrun share the
    cores of their machine.
    """
    if target.workers is not None:
        return target.workers
    dataset = target.dataset
    if not isinstance(dataset, Readable) or not isinstance(dataset.dataset, EncodedImages):
        return 0
    most = min(MOST_WORKERS, usable_cores() // _processes_here() - 1)
    if most < 1:
        return 0
    seconds, sample_bytes = _probe(dataset)
    forked = multiprocessing.get_start_method() == "fork"
    if seconds * min(samples or len(dataset), len(dataset)) < (
        WORTH_FORKING if forked else WORTH_SPAWNING
    ):
        return 0
    if not forked and not _can_be_pickled(dataset):
        return 0
    return min(most, _room(sample_bytes * batch_size))


def usable_cores() -> int:
    """Those this process may run on, and no more than the quota of its container."""
    with suppress(AttributeError):  # not on every system
        return max(1, min(len(os.sched_getaffinity(0)), _quota()))
    return os.cpu_count() or 1


def _quota() -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # "max": no quota
        return os.cpu_count() or 1


def _processes_here() -> int:
    text = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(text)) if text.isdecimal() else 1


def _probe(dataset: Readable) -> tuple[float, int]:
    """Seconds that a sample takes, and the bytes of its tensors; the first is to warm up."""
    places = [i * len(dataset) // _PROBED for i in range(_PROBED)]
    dataset[places[0]]
    start = time.perf_counter()
    samples = [dataset[place] for place in places[1:]]
    seconds = (time.perf_counter() - start) / len(samples)
    return seconds, max(map(_bytes, samples))


def _bytes(sample: Any) -> int:
    value = sample[0] if isinstance(sample, tuple) and sample else sample
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _room(batch_bytes: int) -> int:
    """How many processes' batches half of what is free of the shared memory has room for."""
    try:
        free = shutil.disk_usage(_SHARED).free
    except OSError:
        return MOST_WORKERS
    return int(free / 2 // max(1, batch_bytes * (PREFETCHED + 1)))


def _can_be_pickled(dataset: Readable) -> bool:
    try:
        ForkingPickler.dumps(dataset)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def loaded_batches(loader: DataLoader[Any]) -> Iterator[Loaded]:
    """The batches of a loader whose collate function is `SkipBad`.

    InputError, in one line: one of its processes died, and most likely of what, or the data cannot
    be given to another process.
    """
    iterator = _started(loader)
    with _deaths_found_on_reading(loader), closing(_Ending(iterator)):
        while True:
            try:
                loaded = next(iterator, None)
            except (RuntimeError, MemoryError, OSError, EOFError) as error:
                if loader.num_workers == 0:
                    raise
                raise InputError(_death(error, iterator, loader)) from error
            if loaded is None:
                return
            yield loaded


class _Ending:
    """Ends the processes of a loader's iterator, also where an exception still refers to it."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def close(self) -> None:
        end = getattr(self._iterator, "_shutdown_workers", None)
        if end is not None:
            end()


def _started(loader: DataLoader[Any]) -> Iterator[Loaded]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Got pickle error")  # said below
            return iter(loader)
    except (pickle.PicklingError, AttributeError, TypeError, OSError) as error:
        if loader.num_workers == 0:
            raise
        raise InputError(
            f"no process to load data could be started ({one_line(error)}): use --workers 0"
        ) from error


@contextmanager
def _deaths_found_on_reading(loader: DataLoader[Any]) -> Iterator[None]:
    """PyTorch tells of a dead process by raising wherever the program just is, in a model too.

    Without that, reading the next batch finds it, within seconds.
    """
    if loader.num_workers == 0 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if before is not None:  # None: set by other code than Python's
            signal.signal(signal.SIGCHLD, before)


def _death(error: BaseException, iterator: Any, loader: DataLoader[Any]) -> str:
    workers = getattr(iterator, "_workers", ())
    # One that died while it gave a batch is heard of before the system has its exit code.
    ready = connection.wait([process.sentinel for process in workers], timeout=1)
    for process in workers:
        if process.sentinel in ready:
            process.join(1)
    codes = {process.exitcode for process in workers}
    fewer = f"use fewer than --workers {loader.num_workers}, or a smaller --batch-size"
    said = str(error)
    if -signal.SIGBUS in codes or "shared memory" in said or "No space left" in said:
        return (
            f"a process that loads data found no shared memory: give /dev/shm more (a container: "
            f"--shm-size), {fewer}"
        )
    if -signal.SIGKILL in codes or isinstance(error, MemoryError):
        return f"a process that loads data was killed, most likely for want of memory: {fewer}"
    if "Too many open files" in said or "ancdata" in said:
        return f"processes that load data may not open enough files: raise `ulimit -n`, or {fewer}"
    ended = next((f" (exit code {code})" for code in codes if code), "")
    return f"a process that loads data ended{ended}: {one_line(error)}; --workers 0 tells more"
