from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from workplace import NET, Ran, Run, network

from bnaudit.cli import main


@pytest.fixture(autouse=True)
def _like_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """80 columns without colours, no progress line, and no module of an earlier test's files."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TERMINAL_WIDTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("bnaudit.cli.screen.PLAIN_EVERY", math.inf)  # however slow the machine is
    # As in a plain `bnaudit` run, whatever pytest was started with.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if "pytest-" in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def bnaudit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`bnaudit("measure", "a.pt")` runs the command in this process, in the current folder."""

    def run(*args: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["bnaudit", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        out, err = capfd.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture(scope="session")
def _ran() -> dict[tuple[str, ...], Ran]:
    return {}


@pytest.fixture
def once(bnaudit: Run, _ran: dict[tuple[str, ...], Ran]) -> Run:
    """`bnaudit` for commands that write nothing and give full paths: each runs a single time."""

    def run(*args: str | Path) -> Ran:
        words = tuple(map(str, args))
        if words not in _ran:
            _ran[words] = bnaudit(*words)
        return _ran[words]

    return run


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every `folder` is a copy of."""
    here = tmp_path_factory.mktemp("new") / "work"
    here.mkdir()
    (here / "net.py").write_text(NET)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    torch.save(network().state_dict(), here / "good.pt")
    x, y = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 3
    np.savez(here / "data.npz", x=x, y=y)
    for number in range(10):
        file = here / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[number]).save(file)
    return here


@pytest.fixture
def folder(new_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the run: a network, its weights, and images as .npz and as files.

    `net.py`, `good.pt`, `data.npz` (40 RGB images of 8×8, labels 0 to 2), `images/cat` and
    `images/dog` with 5 images each.
    """
    here = tmp_path / "work"
    shutil.copytree(new_folder, here, copy_function=shutil.copyfile)
    monkeypatch.chdir(here)
    return here
