from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from domain_models import Answer

from bnaudit.cli import main


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny tensors on shared cores: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Answer]:
    """`command("domains", "a.pt")` runs bnaudit in this process, in an empty folder."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TERMINAL_WIDTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("bnaudit.cli.screen.PLAIN_EVERY", math.inf)
    monkeypatch.chdir(tmp_path)

    def run(*args: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["bnaudit", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        out, err = capfd.readouterr()
        return Answer(int(ended.value.code or 0), out, err)

    return run
