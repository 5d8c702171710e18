"""Reading a checkpoint file: formats, what stands beside weights, what is refused and how."""

from __future__ import annotations

import argparse
import collections
import datetime
import hashlib
import io
import json
import os
import pathlib
import pickle
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bnaudit.checkpoints.read import read_checkpoint
from bnaudit.errors import InputError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FORMATS = ["zip", "legacy"]


def save(content: object, path: Path, format_: str = "zip", **options: object) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=format_ == "zip", **options)
    return path


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


class MakesFile:
    """Unpickling one creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("format_", FORMATS)
def test_format_is_told_by_content_and_not_by_suffix(tmp_path: Path, format_: str) -> None:
    for name in ("a.pt", "a.safetensors", "a"):
        path = save({"w": torch.arange(3.0)}, tmp_path / name, format_)
        checkpoint = read_checkpoint(path)
        assert checkpoint.format == format_
        assert checkpoint.content["w"].tolist() == [0.0, 1.0, 2.0]
        assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    save_file({"w": torch.arange(3.0)}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "safetensors"
    assert checkpoint.content["w"].tolist() == [0.0, 1.0, 2.0]


def test_writing_to_a_mapped_tensor_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    before = path.read_bytes()
    content = read_checkpoint(path).content
    content["w"] += 1
    assert content["w"].sum() == 1000
    assert path.read_bytes() == before


def test_a_repacked_compressed_archive_is_read_right(tmp_path: Path) -> None:
    path = save({"w": torch.arange(1000.0)}, tmp_path / "a.pt")
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert torch.equal(read_checkpoint(packed).content["w"], torch.arange(1000.0))


@pytest.mark.parametrize("format_", FORMATS)
def test_plain_data_beside_weights_are_read(tmp_path: Path, format_: str) -> None:
    content = {
        "args": argparse.Namespace(lr=0.1, out=Path("runs") / "a", names=["x"]),
        "best": np.float64(2.5),
        "flag": np.bool_(True),
        "empty": np.str_(""),
        "history": np.arange(6, dtype=">f4").reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "mixed": np.array([1, "x", None], dtype=object),
        "records": np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
        "day": np.array(["2020-01-01"], dtype="M8[D]"),
        "dtype": np.dtype("f4"),
        "windows": pathlib.PureWindowsPath("C:/x"),
        "log": collections.defaultdict(list, {"loss": [1.0]}),
        "steps": collections.Counter({30: 1}),
        "ordered": collections.OrderedDict(a=1),
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "took": datetime.timedelta(hours=1),
        "more": types.SimpleNamespace(a=1),
        "sets": ({1}, frozenset({2})),
        "numbers": (1j, 10**30, slice(1, 2), range(3), b"", b"abc"),
        "version": torch.torch_version.TorchVersion("2.6.0"),
        "kinds": (int, np.float32, torch.float16),
        "state": np.random.default_rng(0).bit_generator.state,
        "old_state": np.random.RandomState(0).get_state(),
    }
    read = read_checkpoint(save(content, tmp_path / "a.pt", format_)).content
    assert list(read) == list(content)
    assert read["args"].lr == 0.1
    assert str(read["args"].out) == str(Path("runs/a"))
    assert read["best"] == 2.5
    for name in ("history", "columns", "mixed"):
        assert np.array_equal(read[name], content[name])
    assert read["log"] == {"loss": [1.0]}
    for name in ("steps", "ordered", "when", "took", "more", "sets", "numbers", "version"):
        assert read[name] == content[name]
    assert np.array_equal(read["old_state"][1], content["old_state"][1])


def test_the_process_wide_allow_list_is_put_back(tmp_path: Path) -> None:
    path = save({"args": argparse.Namespace()}, tmp_path / "a.pt")
    with torch.serialization.safe_globals([np.ndarray]):
        before = set(torch.serialization.get_safe_globals())
        read_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == before
        with pytest.raises(InputError):
            read_checkpoint(tmp_path / "missing.pt")
        assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_no_pickle_is_executed_without_trust(tmp_path: Path, format_: str, protocol: int) -> None:
    marker = tmp_path / "marker"
    content = {"w": torch.ones(2), "x": MakesFile(marker)}
    path = save(content, tmp_path / "a.pt", format_, pickle_protocol=protocol)
    message = refusal(path)
    assert not marker.exists()
    assert "builtins.exec" in message
    assert "--trust-pickle" in message
    read_checkpoint(path, trust_pickle=True)
    assert marker.exists()


def test_a_numpy_array_cannot_turn_bytes_into_objects(tmp_path: Path) -> None:
    class Forged:
        def __reduce__(self) -> object:
            rebuild, args, _ = np.zeros(1).__reduce__()
            # Flags 0 tell NumPy that a dtype of object pointers is plain bytes.
            return rebuild, args, (1, (1,), ForgedType(), False, b"\x41" * 8)

    class ForgedType:
        def __reduce__(self) -> object:
            return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)

    assert "do not fill" in refusal(save({"a": Forged()}, tmp_path / "a.pt"))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_pickled_model_needs_trust_and_is_called_so(tmp_path: Path, format_: str) -> None:
    path = save(nn.Sequential(nn.BatchNorm2d(3)), tmp_path / "a.pt", format_)
    message = refusal(path)
    assert "a whole pickled model" in message
    assert "torch.nn.modules.batchnorm.BatchNorm2d" in message
    assert "torch._utils" not in message
    assert "state_dict()" in message
    assert isinstance(read_checkpoint(path, trust_pickle=True).content, nn.Sequential)


def test_code_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save({"x": collections.OrderedDict(a=1)}, path, "legacy")
    path.write_bytes(path.read_bytes().replace(b"ccollections\n", b"ccollectionz\n"))
    assert "collectionz" in refusal(path)
    assert "PYTHONPATH" in refusal(path, trust_pickle=True)


def test_a_newer_pickle_protocol_is_told(tmp_path: Path) -> None:
    path = save({"w": torch.ones(2)}, tmp_path / "a.pt", pickle_protocol=4)
    assert "pickle protocol above 2" in refusal(path)
    assert list(read_checkpoint(path, trust_pickle=True).content) == ["w"]


@pytest.mark.parametrize("format_", [*FORMATS, "safetensors"])
def test_no_truncated_file_is_read(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "a.pt"
    tensors = {"a": torch.ones(9), "b": torch.ones(3, dtype=torch.int64)}
    save_file(tensors, path) if format_ == "safetensors" else save(tensors, path, format_)
    whole = path.read_bytes()
    for length in [*range(1, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        message = refusal(path)
        assert length < 64 or "truncated or damaged" in message, (length, message)


def test_a_missing_file_is_answered_with_near_names(tmp_path: Path) -> None:
    save({}, tmp_path / "resnet50_best.pth")
    assert "did you mean resnet50_best.pth?" in refusal(tmp_path / "Resnet50-best.pt")
    assert "no folder" in refusal(tmp_path / "nowhere" / "a.pt")


def test_a_folder_is_answered_with_the_checkpoints_in_it(tmp_path: Path) -> None:
    save({}, tmp_path / "a.pth")
    assert "a folder, not a file; it holds a.pth" in refusal(tmp_path)
    (tmp_path / ".metadata").touch()
    assert "distributed checkpoint" in refusal(tmp_path)


NOT_CHECKPOINTS = {
    "empty": (b"", "empty"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
    "html": (b"<!DOCTYPE html>\n<html></html>", "HTML page"),
    "text": (b"epoch 1\x0a\nloss 2", "a text file"),
    "index": (json.dumps({"weight_map": {"a": "b"}}).encode(), "several files"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(99), "NumPy array"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(99), "unpack it first"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x031.1:", "ONNX"),
    "binary": (b"\x00\x01\x02\xff" * 50, "not a checkpoint in a format"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
}


@pytest.mark.parametrize("name", NOT_CHECKPOINTS)
def test_another_kind_of_file_is_named(tmp_path: Path, name: str) -> None:
    content, said = NOT_CHECKPOINTS[name]
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert said in refusal(path)


def test_an_archive_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    np.savez(path.open("wb"), a=np.ones(3))
    assert ".npz" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/weights/weights_0", "")
    assert "torch.export" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "")
    assert "notes.txt" in refusal(path)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    assert "tar archive" in refusal(path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_archive_is_refused_with_and_without_trust(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.jit.save(torch.jit.script(nn.BatchNorm2d(3)), path)
    assert "TorchScript" in refusal(path)
    assert "TorchScript" in refusal(path, trust_pickle=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_a_file_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = save({}, tmp_path / "a.pt")
    monkeypatch.setattr(Path, "open", denied)
    assert "no permission" in refusal(path)


def test_a_message_stays_in_one_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[31mb.pt"
    path.write_bytes(b"text")
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert str(caught.value).isprintable()


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")
@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_legacy_files_with_cuda_tags_load_on_the_cpu(name: str) -> None:
    checkpoint = read_checkpoint(SHARED / name)
    assert checkpoint.format == "legacy"
    # The published names carry the first eight digits of the hash.
    assert name.partition("-")[2].startswith(checkpoint.sha256[:8])
    assert all(t.device.type == "cpu" for t in checkpoint.content["state_dict"].values())
