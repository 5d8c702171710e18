"""Commands under torchrun of which one process fails: real processes, and what users see of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "sample_models"

SECONDS = 120
"""More than any of these takes on a machine that is busy with others: a hang."""

NET = f"""
import os, signal, sys, time
sys.path.insert(0, {str(SAMPLES)!r})
import digits
import torch
from torch import nn
from torchvision import transforms

RANK = int(os.environ["RANK"])

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.forwards = digits.model(), 0

    def forward(self, x):
        self.forwards += 1
        if self.forwards == 3:
            WHAT
        return self.inner(x[:, :1])

def transform():
    return transforms.ToTensor()

def model():
    net = Net()
    net.state_dict, net.load_state_dict = net.inner.state_dict, net.inner.load_state_dict
    return net
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> list[str]:
        """What bnaudit said on stderr, and not the launcher."""
        lines = self.err.splitlines()
        return [line for line in lines if line.startswith(("error: ", "interrupted"))]


Job = Callable[..., Ended]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """`job("recalibrate", what, ...)`: on several ranks; `what` happens before each third forward.

    `meanwhile(launcher)` runs once a file `up` is there.
    """

    def run(
        verb: str,
        what: str,
        *more: str,
        ranks: int = 2,
        meanwhile: Callable[[int], None] | None = None,
    ) -> Ended:
        (tmp_path / "net.py").write_text(NET.replace("WHAT", what))
        config = ("--config", str(SAMPLES / "bnaudit.toml"), "--model", "net.py:model")
        given = more if "--config" in more else (*config, *more)
        words = ("-m", "bnaudit", verb, str(SAMPLES / "healthy.pt"), *given)
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
        out, err = tmp_path / "out.txt", tmp_path / "err.txt"  # pipes outlive a hung rank
        start = time.monotonic()
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *launcher, *words],
                cwd=tmp_path,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            if meanwhile is not None:
                while not (tmp_path / "up").exists() and time.monotonic() < start + SECONDS:
                    time.sleep(0.1)
                meanwhile(process.pid)
            try:
                code = process.wait(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                _kill(process.pid)
                process.wait()
                raise
        return Ended(code, out.read_text(), err.read_text(), time.monotonic() - start)

    return run


def _kill(launcher: int) -> None:
    """A launcher, and the ranks that it started."""
    listed = subprocess.run(
        ["ps", "--ppid", str(launcher), "-o", "pid="], capture_output=True, text=True, check=False
    )
    for process in (*map(int, listed.stdout.split()), launcher):
        os.kill(process, signal.SIGKILL)


def files(folder: Path) -> set[str]:
    ours = {"net.py", "out.txt", "err.txt", "up", "__pycache__"}
    return {path.name for path in folder.iterdir()} - ours


def test_a_rank_that_is_killed_ends_the_job_with_nothing_written(job: Job, tmp_path: Path) -> None:
    (tmp_path / "better.pt").write_bytes(b"as before")
    ended = job(
        *("recalibrate", "RANK == 1 and os.kill(os.getpid(), signal.SIGKILL)"),
        *("-o", "better.pt", "--overwrite", "--force"),
    )
    assert ended.code != 0
    assert ended.seconds < SECONDS
    assert [line.split(":")[:2] for line in ended.said] == [["error", " rank 1 no longer answers"]]
    assert ended.out == ""
    assert files(tmp_path) == {"better.pt"}
    assert (tmp_path / "better.pt").read_bytes() == b"as before"


@pytest.mark.slow
def test_an_image_that_one_rank_cannot_read_is_reported_once_with_its_path(
    job: Job, tmp_path: Path
) -> None:
    for number in range(40):
        file = tmp_path / "images" / str(number % 2) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * number).save(file)
    bad = tmp_path / "images" / "1" / "17.png"
    bad.write_bytes(b"no image")
    (tmp_path / "pictures.toml").write_text(
        'model = "net.py:model"\ndata = "imagefolder:images"\ntransform = "net.py:transform"\n'
    )
    ended = job(
        *("measure", "pass", "--config", "pictures.toml", "--batch-size", "8"),
        *("--output", "results"),
    )
    assert ended.err.count("17.png") == 1
    assert [line for line in ended.said if str(bad.relative_to(tmp_path)) in line]
    assert len(ended.said) == 1
    assert "exitcode  : 2" in ended.err
    assert files(tmp_path) == {"images", "pictures.toml"}


@pytest.mark.slow
@pytest.mark.parametrize("hung", [0, 1])
def test_a_rank_that_hangs_is_named_after_the_timeout(job: Job, tmp_path: Path, hung: int) -> None:
    ended = job(
        *("measure", f"RANK == {hung} and os.kill(os.getpid(), signal.SIGSTOP)"),
        *("--rank-timeout", "5", "--output", "results"),
    )
    assert ended.code != 0
    assert len(ended.said) == 1
    assert ended.said[0].startswith(f"error: rank {hung} kept the others waiting for more than 5")
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_the_first_rank_of_three_is_missed_as_any_other(job: Job, tmp_path: Path) -> None:
    ended = job(
        *("recalibrate", "RANK == 0 and os.kill(os.getpid(), signal.SIGKILL)", "-o", "new.pt"),
        ranks=3,
    )
    assert [line[:31] for line in ended.said] == ["error: rank 0 no longer answers"]
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_an_interruption_is_told_once(job: Job, tmp_path: Path) -> None:
    ended = job(
        *("measure", "RANK == 1 and (open('up', 'w'), time.sleep(5))", "--output", "results"),
        meanwhile=lambda launcher: os.killpg(launcher, signal.SIGINT),
    )
    assert ended.code != 0
    assert ended.said == ["interrupted"]
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_the_end_of_the_launcher_is_told_once(job: Job, tmp_path: Path) -> None:
    ended = job(
        *("measure", "RANK == 1 and (open('up', 'w'), time.sleep(5))", "--output", "results"),
        meanwhile=lambda launcher: os.kill(launcher, signal.SIGTERM),
    )
    assert ended.code != 0
    assert ended.said == ["error: the launcher ended the job before its work was done"]
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_a_bug_on_one_rank_shows_its_traceback_once(job: Job, tmp_path: Path) -> None:
    broken = "RANK == 1 and sys.modules['bnaudit.engine.collect'].__dict__.clear()"
    ended = job("measure", broken, "--output", "results")
    assert [line[:21] for line in ended.said] == ["error: rank 1 failed:"]
    assert ended.err.count("bnaudit/engine/collect.py") >= 1
    assert "exitcode  : 3" in ended.err
    assert files(tmp_path) == set()
