"""A checkpoint's pickle as inert data, whatever its author put in."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import random
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bnaudit.checkpoints.dtypes import DTYPES
from bnaudit.checkpoints.patch import patch_checkpoint
from bnaudit.checkpoints.stub_pickle import read_stubs
from bnaudit.checkpoints.stubs import OddTensor, Stub, TensorRef
from bnaudit.errors import InputError


def stubs_of(content: object, protocol: int = 2) -> object:
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol)
    with zipfile.ZipFile(buffer) as archive:
        return read_stubs(io.BytesIO(archive.read("archive/data.pkl"))).root


def test_tensors_are_references_with_shape_type_and_place() -> None:
    flat = torch.arange(12, dtype=torch.float64)
    root = stubs_of(collections.OrderedDict(a=flat.view(3, 4).t(), b=nn.Parameter(flat[5:])))
    assert isinstance(root, dict)
    a, b = root["a"], root["b"]
    assert isinstance(a, TensorRef)
    assert isinstance(b, TensorRef)
    assert (a.size, a.stride, a.start, a.dtype) == ((4, 3), (1, 4), 0, DTYPES["float64"])
    assert (b.size, b.start) == ((7,), 40)
    assert a.storage.key == b.storage.key


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_newer_and_odd_types_are_told_apart() -> None:
    state = {
        "new": torch.ones(3, dtype=torch.uint16),
        "buffer": nn.Buffer(torch.ones(3)),
        "sparse": torch.eye(3).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        "conjugate": torch.ones(3, dtype=torch.complex64).conj(),
    }
    root = stubs_of(state)
    assert isinstance(root, dict)
    assert root["new"].dtype == DTYPES["uint16"]
    assert root["buffer"].plain
    assert isinstance(root["sparse"], OddTensor)
    assert isinstance(root["quantised"], OddTensor)
    assert not root["conjugate"].plain


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_objects_of_any_class_become_stubs(protocol: int) -> None:
    content = {
        "args": argparse.Namespace(a=1),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1, 2]),
        "path": Path("x"),
        "error": ValueError("x"),
        "module": nn.Linear(1, 1),
        "function": os.getcwd,
        "set": {1, 2},
        "frozen": frozenset({1}),
        "number": 1j,
        "bytes": b"abc",
        "nested": [({"a": (1, 2)},)],
    }
    root = stubs_of(content, protocol)
    assert isinstance(root, dict)
    assert list(root) == list(content)
    assert root["nested"] == [({"a": (1, 2)},)]
    for name in ("args", "counter", "default", "deque", "path", "error", "module", "number"):
        assert isinstance(root[name], Stub), name


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'touch marker'\ntR.",
        b"(S'touch marker'\nios\nsystem\n.",
        b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR(S'touch marker'\ntR.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n}S'__call__'\ncos\nsystem\nsb.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n(K\x01K\x01K\x01K\x01K\x01tR.",
        b"\x80\x02ccollections\nOrderedDict\n)R}S'items'\ncos\nsystem\nsb.",
        b"\x80\x02ctorch\nFloatStorage\n}S'dtype'\ncos\nsystem\nsb.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch marker\x85R.",
        b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    ],
)
def test_no_name_in_a_pickle_is_resolved(
    attack: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def called(*_: object) -> None:
        raise AssertionError("a function of the system was called")

    monkeypatch.setattr(os, "system", called)
    # Refusing is as good as keeping a stub.
    with suppress(pickle.UnpicklingError, TypeError, AttributeError):
        read_stubs(io.BytesIO(attack))
    assert list(tmp_path.iterdir()) == []


def test_a_huge_memo_index_costs_nothing() -> None:
    tracemalloc.start()
    try:
        read_stubs(io.BytesIO(b"\x80\x02K\x01r\xff\xff\xff\x7f."))
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def checkpoints(folder: Path) -> list[Path]:
    state = {"bn.running_mean": torch.randn(3), "w": torch.randn(4).view(2, 2)}
    paths = [folder / name for name in ("zip", "legacy", "safetensors", "compressed")]
    torch.save({"m": state, "x": {1: "a"}}, paths[0])
    torch.save({"m": state, "x": [None]}, paths[1], _use_new_zipfile_serialization=False)
    save_file(state, paths[2])
    with zipfile.ZipFile(paths[0]) as old, zipfile.ZipFile(paths[3], "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return paths


@pytest.mark.parametrize("format_", ["zip", "legacy", "safetensors", "compressed"])
def test_a_damaged_file_is_patched_or_refused_in_one_line(tmp_path: Path, format_: str) -> None:
    original = next(p for p in checkpoints(tmp_path) if p.name == format_).read_bytes()
    path, target = tmp_path / "damaged", tmp_path / "target"
    values = {"bn.running_mean": torch.ones(3)}
    key = "" if format_ == "safetensors" else "m"
    draw = random.Random(0)
    messages = []
    for _ in range(250):
        content = bytearray(original)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        if draw.random() < 0.2:
            del content[draw.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            patch_checkpoint(path, target, values, key=key, provenance={})
            target.unlink()
            target.with_name("target.bnaudit.json").unlink()
        except InputError as error:
            messages.append(str(error))
        assert path.read_bytes() == content
        assert {p.name for p in tmp_path.iterdir()} == {
            *("zip", "legacy", "safetensors", "compressed", "damaged")
        }
    assert 0 < len(messages) < 250
    assert all(len(message.splitlines()) == 1 for message in messages)
