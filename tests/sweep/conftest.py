from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from sweep_inputs import SAMPLES
from sweep_runs import Sweeping, SweepRan

from bnaudit.cli import main


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Sweeping:
    """`sweep("prior", "a.pt")` runs `bnaudit sweep` in this process, 80 columns wide."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TERMINAL_WIDTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("bnaudit.cli.screen.PLAIN_EVERY", math.inf)

    def run(*args: str | Path) -> SweepRan:
        monkeypatch.setattr(sys, "argv", ["bnaudit", "sweep", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        out, err = capfd.readouterr()
        code = ended.value.code
        return SweepRan(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture
def on_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name network and digits; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    return ["--config", str(SAMPLES / "bnaudit.toml")]
