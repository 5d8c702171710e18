from __future__ import annotations

import resource
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attacks import Refused
from torch import nn
from torch.utils.data import TensorDataset
from workplace import Run, network

import bnaudit as product
from bnaudit.report.files import write_results

SECONDS = 20
"""On a machine that is busy with other things; alone, each takes a fraction of one."""

MEMORY = 2**30


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real Audit: audit.json, layers.csv and channels.npz."""
    torch.manual_seed(0)
    model = nn.Sequential(*network()[:4], nn.BatchNorm2d(4), *network()[4:]).eval()
    data = TensorDataset(torch.rand(64, 3, 8, 8), torch.arange(64) % 3)
    folder = tmp_path_factory.mktemp("measured")
    audit = product.measure(model, data, batch_size=8, train_batch_size=8)
    write_results(audit, folder, plots=False)
    return folder


@pytest.fixture
def refused(folder: Path, bnaudit: Run) -> Refused:
    """`refused("report", "x")`: what the command says in its one line, once all else is checked."""

    def run(*args: str | Path) -> str:
        before = _state(folder)
        started, memory = time.monotonic(), _memory()
        ran = bnaudit(*args)
        assert (ran.code, ran.out) == (2, ""), ran
        assert ran.err.startswith("error: "), ran.err
        assert ran.err.count("\n") == 1, ran.err
        assert not [c for c in ran.err[:-1] if not c.isprintable()], ran.err
        assert _state(folder) == before
        assert time.monotonic() - started < SECONDS
        assert _memory() - memory < MEMORY
        return ran.err

    return run


@pytest.fixture
def runs(folder: Path, bnaudit: Run) -> Callable[..., str]:
    """`runs("report", "x")`: what a command that succeeds prints, nothing of it raw."""

    def run(*args: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        ran = bnaudit(*args)
        assert ran.code in codes, ran
        printed = ran.out + ran.err
        assert not [c for c in printed if not c.isprintable() and c != "\n"], printed
        return printed

    return run


def _state(folder: Path) -> dict[str, tuple[object, ...]]:
    """What is in a folder, without opening what is no file or reading what is huge."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        known = path.lstat()
        small = stat.S_ISREG(known.st_mode) and known.st_size < 2**24
        content = path.read_bytes() if small else b""
        found[str(path)] = (known.st_mode, known.st_size, known.st_mtime_ns, content)
    return found


def _memory() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
