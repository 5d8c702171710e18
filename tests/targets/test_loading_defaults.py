from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bnaudit.config import resolve
from bnaudit.errors import InputError
from bnaudit.targets import loading
from bnaudit.targets.data import DataTarget, SkipBad, open_data
from bnaudit.targets.loading import automatic_workers, loaded_batches
from bnaudit.targets.samples import Readable
from bnaudit.targets.transforms import as_tensor

Write = Callable[..., Path]
Draw = Callable[..., Path]


def slow(image: Any) -> torch.Tensor:
    time.sleep(0.02)
    return as_tensor(image)


@pytest.fixture
def images(tmp_path: Path, draw: Draw) -> str:
    for i in range(8):
        draw(tmp_path / f"set/{i}.png")
    return f"imagefolder:{tmp_path}/set"


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`cores(4)`: this process may run on so many."""

    def have(count: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
        monkeypatch.setattr(loading, "_quota", lambda: 64)

    return have


def longer(target: DataTarget, times: int) -> DataTarget:
    """The same data, so many times over."""
    target.dataset.dataset.files = list(target.dataset.dataset.files) * times
    return target


def test_images_that_take_long_are_loaded_on_every_core_but_one(
    images: str, cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = longer(open_data(images, {}, slow), 100)
    for count, workers in [(1, 0), (2, 1), (4, 3), (64, 8)]:
        cores(count)
        assert automatic_workers(target, None, 32) == workers
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # torchrun runs so many processes here
    for count, workers in [(4, 0), (16, 3), (64, 8)]:
        cores(count)
        assert automatic_workers(target, None, 32) == workers


def test_loading_that_takes_no_longer_than_starting_processes_is_done_without(
    images: str, cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(8)
    assert automatic_workers(longer(open_data(images, {}, None), 10), None, 32) == 0
    slowly = longer(open_data(images, {}, slow), 100)
    assert automatic_workers(slowly, 20, 32) == 0  # of 800, so few are read
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    assert automatic_workers(slowly, None, 32) == 0
    monkeypatch.setattr(loading, "WORTH_SPAWNING", 1.0)
    assert automatic_workers(slowly, None, 32) == 7
    slowly.dataset.dataset.transform = lambda image: slow(image)  # cannot be pickled
    assert automatic_workers(slowly, None, 32) == 0


def test_there_are_no_more_processes_than_shared_memory_has_room_for(
    images: str, cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(16)
    target = longer(open_data(images, {}, slow), 100)
    batch = 32 * 3 * 4 * 5 * 4
    for free, workers in [(2 * 3 * batch * 2, 2), (2 * batch, 0), (10**9, 8)]:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(loading.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert automatic_workers(target, None, 32) == workers


def test_arrays_and_users_own_data_sets_are_loaded_here_unless_their_loader_says_how_many(
    tmp_path: Path, write: Write, cores: Callable[[int], None]
) -> None:
    cores(8)
    np.savez(tmp_path / "a.npz", x=np.zeros((50_000, 4, 4, 3), np.uint8))
    assert automatic_workers(open_data(f"npz:{tmp_path}/a.npz", {}, slow), None, 32) == 0
    file = write(
        "its_data.py",
        "import time, torch\n"
        "from torch.utils.data import DataLoader, Dataset\n"
        "class Slow(Dataset):\n"
        "    def __len__(self): return 1000\n"
        "    def __getitem__(self, i): time.sleep(0.02); return torch.zeros(3)\n"
        "def dataset(): return Slow()\n"
        "def loader(): return DataLoader(Slow(), batch_size=4, num_workers=3)\n",
    )
    assert automatic_workers(open_data(f"{file}:dataset", {}, None), None, 32) == 0
    assert automatic_workers(open_data(f"{file}:loader", {}, None), None, 32) == 3


class Deadly(Dataset[Any]):
    """Its sample 5 ends the process that loads it."""

    def __init__(self, death: Callable[[], Any]) -> None:
        self.death = death

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if index == 5 and get_worker_info() is not None:
            self.death()
        return torch.full((2,), float(index))


def loader(death: Callable[[], Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(
        Readable(Deadly(death)), batch_size=2, collate_fn=SkipBad(), num_workers=1, **options
    )


def killed_by(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_a_process_that_dies_is_told_where_the_next_batch_is_read_and_nowhere_else() -> None:
    batches = loaded_batches(loader(killed_by(signal.SIGKILL)))
    next(batches)
    end = time.monotonic() + 1
    while time.monotonic() < end:  # a model at work, which must not be what fails
        pass
    with pytest.raises(InputError, match="killed, most likely for want of memory: ") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    os.waitstatus_to_exitcode(os.system("true"))  # other processes end unnoticed, as before


@pytest.mark.parametrize(
    ("death", "said"),
    [
        (killed_by(signal.SIGBUS), "no shared memory: give /dev/shm more"),
        (lambda: os._exit(3), r"ended \(exit code 3\)"),
    ],
)
def test_what_a_process_died_of_is_told(death: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        list(loaded_batches(loader(death)))
    assert "\n" not in str(caught.value)


def want_memory() -> None:
    raise MemoryError


def test_a_process_that_runs_out_of_memory_is_told() -> None:
    with pytest.raises(InputError, match="for want of memory"):
        list(loaded_batches(loader(want_memory)))


def test_without_processes_of_their_own_batches_come_as_they_are() -> None:
    alone = DataLoader(Readable(Deadly(want_memory)), batch_size=2, collate_fn=SkipBad())
    assert [loaded.batch[0, 0].item() for loaded in loaded_batches(alone)] == [0, 2, 4, 6]


def test_data_that_cannot_be_given_to_a_process_are_told_in_one_line() -> None:
    spawned = loader(lambda: None, multiprocessing_context="spawn")
    with pytest.raises(InputError, match=r"no process to load data could be started.*--workers 0"):
        list(loaded_batches(spawned))


def test_workers_are_a_number_from_0_or_auto() -> None:
    assert [resolve({"workers": given}, None).workers for given in ("3", 0, "auto", None)] == [
        3,
        0,
        "auto",
        "auto",
    ]
    for given in ("-1", "many", 1.5, True):
        with pytest.raises(InputError, match="--workers: give an integer from 0, or auto"):
            resolve({"workers": given}, None)
