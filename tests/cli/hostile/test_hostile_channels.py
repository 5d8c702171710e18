"""channels.npz beside a good Audit: damaged, of another Audit, or made to do harm."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import NOT_FILES, OTHER_FILES, Refused, RunsCode, in_turn, kinds

VERBS: dict[str, list[str]] = {
    "report": ["report", "good"],
    "report into a folder": ["report", "good", "-o", "out"],
    "gate": ["gate", "good"],
    "compare": ["compare", "good", "good/audit.json"],
}

Make = Callable[[Path], object]


def rewritten(**changes: Any) -> Make:
    """The arrays as they are, but for some."""

    def make(path: Path) -> None:
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **{**arrays, **changes})

    return make


def longer_than_it_is(path: Path) -> None:
    """A header that speaks of eight terabytes."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    rewritten_member(path, "gamma.npy", head.getvalue() + bytes(32))


def rewritten_member(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as old:
        members = {one: old.read(one) for one in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for one, data in {**members, name: content}.items():
            new.writestr(one, data)


def bomb(path: Path) -> None:
    """A megabyte that unpacks to a gigabyte."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist() if name != "shift.npy"}
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packed, packed.open("shift.npy", "w", force_zip64=True) as member:
        for _ in range(2**10):
            member.write(bytes(2**20))
    with zipfile.ZipFile(path, "a") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES: dict[str, Make] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "a zip without arrays": lambda path: zipfile.ZipFile(path, "w").close(),
    "objects": rewritten(gamma=np.array([None, 1], dtype=object)),
    "code": lambda path: rewritten_member(path, "gamma.npy", pickle.dumps(RunsCode())),
    "a header that is code": lambda path: rewritten_member(
        path, "gamma.npy", b"\x93NUMPY\x01\x00\x40\x00" + b"open('marker', 'w')".ljust(64)
    ),
    "a header that is too long": longer_than_it_is,
    "a gigabyte in a small file": bomb,
    "shorter arrays": rewritten(gamma=np.ones(3)),
    "arrays of two dimensions": rewritten(gamma=np.ones((4, 1))),
    "integers": rewritten(gamma=np.ones(4, dtype=np.int64)),
    "text": rewritten(gamma=np.array(["a", "b", "c", "d"])),
    "offsets beyond the end": rewritten(offsets=np.array([0, 10**9])),
    "negative offsets": rewritten(offsets=np.array([0, -4])),
    "one offset": rewritten(offsets=np.array([0])),
    "names that are numbers": rewritten(names=np.array([1.0])),
    "other names": rewritten(names=np.array(["other"])),
}


@pytest.fixture
def channels(folder: Path, measured: Path) -> Path:
    """The per-channel arrays of a good Audit in the current folder."""
    shutil.copytree(measured, folder / "good")
    return Path("good/channels.npz")


@pytest.mark.parametrize(("kind", "verb"), in_turn(kinds(DAMAGES), VERBS))
def test_damaged_arrays_are_refused(channels: Path, refused: Refused, kind: str, verb: str) -> None:
    DAMAGES[kind](channels)
    assert "good/channels.npz: " in refused(*VERBS[verb])
    assert not Path("marker").exists()


@pytest.mark.parametrize("kind", [*OTHER_FILES, *NOT_FILES])
def test_what_is_no_file_of_arrays_is_refused(channels: Path, refused: Refused, kind: str) -> None:
    if kind == "a file below a file":
        return
    channels.unlink()
    {**OTHER_FILES, **NOT_FILES}[kind](channels)
    assert "good/channels.npz: " in refused("report", "good")
    assert not Path("marker").exists()


def test_an_audit_without_its_arrays_is_read(channels: Path, runs: Callable[..., str]) -> None:
    channels.unlink()
    assert "2 BatchNorm2d" in runs("report", "good")
