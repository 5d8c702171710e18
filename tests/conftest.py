"""For all tests: one thread in every process, and a command that is put together once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache

import pytest

# Before torch is loaded, and for child processes: tiny tensors gain nothing by threads, and those
# of two pytest workers only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _command_once() -> Iterator[None]:
    """The command and its options, which typer would put together anew for every run."""
    import typer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", cache(typer.main.get_command))
        yield
