from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_import_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files loaded by one test, and their folders, are not importable in the next."""
    before = set(sys.modules)
    path = list(sys.path)
    # As it is in a plain `bnaudit` run, whatever pytest was started with.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "pytest-" in file:
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("net.py", "import torch")` -> the file's path, under tmp_path."""

    def _write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return _write


@pytest.fixture
def draw() -> Callable[..., Path]:
    """`draw(path, size=(5, 4), colour=(10, 20, 30))` -> an image file of one colour."""

    def _draw(
        path: Path, size: tuple[int, int] = (5, 4), colour: tuple[int, ...] = (10, 20, 30)
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.broadcast_to(np.uint8(colour), (size[1], size[0], len(colour)))
        grey = len(colour) == 1
        Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if grey else pixels)).save(path)
        return path

    return _draw
