"""Checkpoints that are damaged or made to do harm, through every verb that takes one."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attacks import NOT_FILES, OTHER_FILES, Refused, RunsCode, in_turn, kinds, put

MEASURED = ["--model", "net.py:model", "--data", "npz:data.npz"]

VERBS: dict[str, list[str]] = {
    "inspect": ["inspect", "bad.pt"],
    "inspect against": ["inspect", "good.pt", "--against", "bad.pt"],
    "measure": ["measure", "bad.pt", *MEASURED],
    "gate": ["gate", "bad.pt", *MEASURED],
    "gate with a base": ["gate", "good.pt", "--base-checkpoint", "bad.pt", *MEASURED],
    "recalibrate": ["recalibrate", "bad.pt", *MEASURED],
}


def cut(share: float) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        whole = Path("good.pt").read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    return make


def repacked(change: Callable[[str, bytes], bytes]) -> Callable[[Path], object]:
    """good.pt with other content in its members."""

    def make(path: Path) -> None:
        with zipfile.ZipFile("good.pt") as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, change(name, old.read(name)))

    return make


def bomb(path: Path) -> None:
    """A small file whose pickle unpacks to a gigabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("archive/data.pkl", "w", force_zip64=True) as member:
            for _ in range(2**10):
                member.write(bytes(2**20))
        file.writestr("archive/version", "3\n")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "its first bytes": cut(0.001),
    "a third of it": cut(1 / 3),
    "nearly all of it": cut(0.99),
    "text": lambda path: put(path, "weights\n"),
    "an Audit": lambda path: shutil.copy("measured/audit.json", path),
    "a configuration": lambda path: put(path, "seed = 1\n"),
    "code in a checkpoint": lambda path: torch.save({"model": RunsCode()}, path),
    "code in an old one": lambda path: torch.save(
        {"model": RunsCode()}, path, _use_new_zipfile_serialization=False
    ),
    "brackets without an end": lambda path: path.write_bytes(b"\x80\x02" + b"(" * 10**6),
    "lists in lists": lambda path: path.write_bytes(b"\x80\x02" + b"]" * 10**6 + b"a" * 999_999),
    "a pickle in place of the index": repacked(
        lambda name, data: pickle.dumps(RunsCode()) if name.endswith("data.pkl") else data
    ),
    "half of each member": repacked(lambda name, data: data[: len(data) // 2]),
    "members without content": repacked(lambda name, data: b""),
    "a gigabyte in a small file": bomb,
    "a list of weights": lambda path: torch.save([torch.zeros(3)], path),
    "a number": lambda path: torch.save(3, path),
    "nothing": lambda path: torch.save({}, path),
}


@pytest.mark.parametrize(("kind", "verb"), in_turn(kinds(DAMAGES), VERBS))
def test_a_damaged_checkpoint_is_refused(
    folder: Path, measured: Path, refused: Refused, kind: str, verb: str
) -> None:
    shutil.copytree(measured, folder / "measured")
    DAMAGES[kind](Path("bad.pt"))
    assert "bad.pt" in refused(*VERBS[verb])
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    ("kind", "verb"),
    in_turn(kinds(["gzip", "bytes of no encoding", "zeros", "far too large"]), VERBS),
)
def test_another_file_in_place_of_a_checkpoint_is_refused(
    refused: Refused, kind: str, verb: str
) -> None:
    OTHER_FILES[kind](Path("bad.pt"))
    assert "bad.pt" in refused(*VERBS[verb])


@pytest.mark.parametrize(("kind", "verb"), in_turn(kinds(NOT_FILES), VERBS))
def test_what_is_no_file_is_refused_and_not_waited_for(
    refused: Refused, kind: str, verb: str
) -> None:
    NOT_FILES[kind](Path("bad.pt"))
    args = VERBS[verb]
    if kind == "a file below a file":
        args = [arg.replace("bad.pt", "net.py/bad.pt") for arg in args]
    assert "bad." in refused(*args)
