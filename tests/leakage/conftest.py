from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Protocol

import pytest
import torch

from bnaudit.cli import main


class Run(Protocol):
    def __call__(self, *args: object) -> tuple[int, str, str]: ...


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny tensors on shared cores: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def leakage(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`leakage("a.pt", …)` runs the command here: (exit code, stdout, stderr)."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TERMINAL_WIDTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("bnaudit.cli.screen.PLAIN_EVERY", math.inf)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bnaudit", "leakage", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        out, err = capfd.readouterr()
        return (ended.value.code if isinstance(ended.value.code, int) else 0), out, err

    return run
