"""A checkpoint's tensors, read without torch: the same as torch reads, or refused by name."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bnaudit
from bnaudit.checkpoints import file_tensor
from bnaudit.checkpoints.contents import Contents, read_contents
from bnaudit.checkpoints.layout import find_state_dict
from bnaudit.checkpoints.read import read_checkpoint
from bnaudit.errors import InputError

FORMATS = ["zip", "legacy", "compressed", "big-endian"]

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


def save(content: object, path: Path, format_: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=format_ != "legacy")
    if format_ in ("compressed", "big-endian"):
        repack(path, format_)
    return path


def repack(path: Path, format_: str) -> None:
    """Compress the members; or turn round every storage, as a big-endian machine writes them."""
    packed = path.with_name("packed")
    compression = zipfile.ZIP_DEFLATED if format_ == "compressed" else zipfile.ZIP_STORED
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(packed, "w", compression, compresslevel=1) as new,
    ):
        words = storages(path) if format_ == "big-endian" else {}
        for name in old.namelist():
            data = old.read(name)
            record = name.rpartition("/data/")[2]
            if format_ == "big-endian" and name.endswith("/byteorder"):
                data = b"big"
            elif record in words:
                word = words[record]
                data = np.frombuffer(data, np.uint8).reshape(-1, word)[:, ::-1].tobytes()
            new.writestr(name, data)
    packed.replace(path)


def storages(path: Path) -> dict[str, int]:
    """How many bytes are turned round together, by storage, as torch has it."""
    words: dict[str, int] = {}

    class Reader(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> object:
            _, kind, key, _, numel = pid
            dtype = getattr(kind, "dtype", torch.uint8)
            words[key] = dtype.itemsize // (2 if dtype.is_complex else 1)
            storage = torch.UntypedStorage(numel * dtype.itemsize)
            return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)

    with zipfile.ZipFile(path) as archive:
        member = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        Reader(archive.open(member)).load()
    return words


def awkward() -> dict[str, Tensor]:
    """Tensors that share, skip and repeat what lies in their storages, of every type."""
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    state = {
        "whole": base,
        "row": base[3],
        "turned": base.t(),
        "steps": base[::2, 1::3],
        "expanded": base[0].expand(4, 8),
        "overlapping": base.flatten().as_strided((4, 3), (1, 2), 5),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "bfloat16": torch.randn(5).bfloat16(),
        "float16": torch.randn(5, dtype=torch.float64).half(),
        "float64": torch.randn(5, dtype=torch.float64),
        "complex64": torch.randn(5, dtype=torch.complex64),
        "bool": torch.tensor([True, False]),
        "uint16": torch.tensor([1, 60000], dtype=torch.uint16),
        "int8": torch.tensor([-3, 3], dtype=torch.int8),
        "parameter": nn.Parameter(torch.randn(3)),
        "long": torch.arange(3 * file_tensor.CHUNK // 2, dtype=torch.int32),
    }
    return collections.OrderedDict(state)


def as_array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def check(contents: Contents, state: dict[str, Tensor]) -> None:
    assert set(contents.tensors) == set(state)
    for name, expected in state.items():
        found = contents.tensors[name]
        assert found.shape == tuple(expected.shape), name
        assert found.dtype == str(expected.dtype).removeprefix("torch."), name
        values = found.values()
        assert values.dtype.isnative, name
        np.testing.assert_array_equal(values, as_array(expected), err_msg=name)
        chunks = list(found.chunks())
        assert max(len(chunk) for chunk in chunks) <= file_tensor.CHUNK
        np.testing.assert_array_equal(
            np.concatenate(chunks), as_array(expected).reshape(-1), err_msg=name
        )


@pytest.mark.parametrize("format_", FORMATS)
def test_tensors_are_what_torch_reads_wherever_they_lie(tmp_path: Path, format_: str) -> None:
    state = awkward()
    if format_ == "legacy":
        del state["uint16"]  # torch can write it so, and not read it
    path = save({"epoch": 3, "state_dict": state}, tmp_path / "a.pt", format_)
    contents = read_contents(path)
    oracle = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    check(contents, oracle)
    assert (contents.key, contents.bytes) == ("state_dict", path.stat().st_size)
    assert contents.format == ("legacy" if format_ == "legacy" else "zip")
    assert list(contents.tensors) == list(oracle)


def test_safetensors_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state = {k: v.detach().clone().contiguous() for k, v in awkward().items() if k != "expanded"}
    save_file(state, path, metadata={"format": "pt"})
    contents = read_contents(path)
    check(contents, state)
    header = json.loads(path.read_bytes()[8:].split(b"}}")[0] + b"}}")
    starts = [header[name]["data_offsets"][0] for name in contents.tensors]
    assert starts == sorted(starts)
    assert contents.format == "safetensors"


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_without_plain_values_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    state = {
        "w": torch.ones(3),
        "bn.running_mean": torch.zeros(3),
        "sparse": torch.eye(3).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        "conjugate": torch.ones(3, dtype=torch.complex64).conj(),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
    }
    contents = read_contents(save(state, tmp_path / "a.pt"))
    assert set(contents.tensors) == {"w", "bn.running_mean"}
    assert set(contents.odd) == {"sparse", "quantised", "conjugate", "float8"}
    assert "float8_e4m3fn" in contents.odd["float8"]
    save_file({"w": torch.ones(3), "float8": state["float8"]}, tmp_path / "a.safetensors")
    contents = read_contents(tmp_path / "a.safetensors")
    assert (set(contents.tensors), set(contents.odd)) == ({"w"}, {"float8"})


def test_names_that_would_reach_the_terminal_as_commands_are_left_out(tmp_path: Path) -> None:
    state = {"w": torch.ones(3), "a\x1b[2Jb.running_mean": torch.ones(3), "c\n": torch.ones(3)}
    contents = read_contents(save({"model": state, "x\x1b": state}, tmp_path / "a.pt"))
    assert list(contents.tensors) == ["w"]
    assert all(name.isprintable() for name in (*contents.odd, *contents.others))
    assert len(contents.odd) == 2


def test_a_file_of_types_that_are_not_read_is_still_a_state_dict(tmp_path: Path) -> None:
    state = {f"w{i}": torch.ones(3).to(torch.float8_e5m2) for i in range(5)}
    save_file({**state, "bn.running_mean": torch.ones(3)}, tmp_path / "a.safetensors")
    contents = read_contents(tmp_path / "a.safetensors")
    assert (list(contents.tensors), set(contents.odd)) == (["bn.running_mean"], set(state))


def test_an_object_that_is_no_dict_is_called_by_its_name(tmp_path: Path) -> None:
    for content, kind in ((argparse.Namespace(a=1), "Namespace"), (torch.ones(3), "Tensor")):
        with pytest.raises(InputError, match=f"holds a {kind}, where a dict with named"):
            read_contents(save(content, tmp_path / "a.pt"))


@pytest.mark.parametrize("format_", ["zip", "legacy", "compressed", "safetensors"])
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "damaged"
    bn = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    if format_ == "safetensors":
        save_file(bn.state_dict(), path)
    else:
        adam = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"params": [0]}]}
        save({"model": bn, "optimizer": adam}, path, format_)
    original = path.read_bytes()
    draw = random.Random(0)
    messages = []
    for _ in range(300):
        content = bytearray(original)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        if draw.random() < 0.1:
            del content[draw.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            bnaudit.inspect(path).to_json()
        except InputError as error:
            messages.append(str(error))
    assert 0 < len(messages) < 300
    assert all(len(message.splitlines()) == 1 for message in messages)


NESTED = {
    "model": {"conv.weight": torch.ones(2, 2), "bn.weight": torch.zeros(1)},
    "my.ema": {"inner": {"conv.weight": torch.ones(2, 3), "bn.weight": torch.zeros(1)}},
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []},
    "loss": torch.tensor(1.0),
    "args": ["x", {"a": 1}],
}


@pytest.mark.parametrize("key", [None, "model", "my.ema.inner", "nothing", "", "loss", "args"])
def test_the_weights_are_chosen_as_by_the_reader_with_torch(
    tmp_path: Path, key: str | None
) -> None:
    path = save(NESTED, tmp_path / "a.pt")

    def outcome(read: object) -> object:
        try:
            found = read()  # type: ignore[operator]
        except InputError as error:
            return str(error)
        return found.key, found.others, list(found.tensors)

    with_torch = outcome(lambda: find_state_dict(read_checkpoint(path), key=key))
    assert outcome(lambda: read_contents(path, key=key)) == with_torch


def unreadable(folder: Path) -> dict[str, Path]:
    whole = save({"w": torch.randn(100, 100)}, folder / "whole.pt").read_bytes()
    old = save({"w": torch.randn(100, 100)}, folder / "old.pt", "legacy").read_bytes()
    save_file({"w": torch.randn(100)}, folder / "tensors")
    tensors = (folder / "tensors").read_bytes()
    contents = {
        "empty": b"",
        "cut": whole[:-200],
        "cut-tensors": tensors[:-4],
        "cut-header": tensors[:20],
        "html": b"<!DOCTYPE html><html></html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\n",
        "gguf": b"GGUF\x03\x00",
        "no-weights": save({"epoch": 1}, folder / "epoch.pt").read_bytes(),
        "list": save([1, 2], folder / "list.pt").read_bytes(),
    }
    paths = {name: folder / f"{name}.pt" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    (folder / "cut-old.pt").write_bytes(old[:-200])
    return paths | {"missing": folder / "hole.pt", "a folder": folder}


def test_a_file_that_cannot_be_read_is_answered_as_by_the_reader_with_torch(tmp_path: Path) -> None:
    for name, path in unreadable(tmp_path).items():
        with pytest.raises(InputError) as theirs:
            find_state_dict(read_checkpoint(path))
        with pytest.raises(InputError) as ours:
            read_contents(path)
        assert str(ours.value) == str(theirs.value), name
        assert len(str(ours.value).splitlines()) == 1


def test_a_legacy_file_that_was_cut_off_is_truncated(tmp_path: Path) -> None:
    unreadable(tmp_path)
    with pytest.raises(InputError, match=r"truncated or damaged .*download it again"):
        read_contents(tmp_path / "cut-old.pt")


def test_a_file_that_changes_while_it_is_used_is_answered_in_one_line(tmp_path: Path) -> None:
    path = save({"w": torch.randn(100)}, tmp_path / "a.pt")
    tensor = read_contents(path).tensors["w"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="became shorter"):
        tensor.values()
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        tensor.values()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.01))
        self.head = nn.BatchNorm1d(4, momentum=None)
        self.loose = nn.BatchNorm2d(2, track_running_stats=False)
        self.register_buffer("scratch", torch.ones(3), persistent=False)
        self.twin = self.head


@pytest.mark.parametrize("format_", FORMATS)
def test_a_pickled_model_tells_its_state_dict_and_its_settings(
    tmp_path: Path, format_: str
) -> None:
    model = Net()
    contents = read_contents(save({"net": model, "epoch": 1}, tmp_path / "a.pt", format_))
    check(contents, dict(model.state_dict()))
    assert list(contents.tensors) == list(model.state_dict())
    facts = contents.modules
    assert (facts["stem.1"].kind, facts["stem.1"].eps) == ("BatchNorm2d", 1e-3)
    assert (facts["stem.1"].momentum, facts["stem.1"].tracks) == (0.01, True)
    assert (facts["head"].kind, facts["head"].momentum) == ("BatchNorm1d", None)
    assert facts["loose"].tracks is False
    assert (facts[""].kind, facts["stem.0"].eps) == ("Net", None)
    assert facts["twin"] == facts["head"]


def test_a_state_dict_says_nothing_of_its_modules(tmp_path: Path) -> None:
    assert read_contents(save(Net().state_dict(), tmp_path / "a.pt")).modules == {}


LARGE = """
import json, sys
from pathlib import Path
from bnaudit.verbs.inspect import inspect
found = inspect(sys.argv[1])
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps([len(found.layers), found.file.bytes, peak, "torch" in sys.modules]))
"""

SMALL = {
    "bn.running_mean": torch.randn(64),
    "bn.running_var": torch.rand(64) + 0.5,
    "bn.num_batches_tracked": torch.tensor(7),
}


def large_safetensors(path: Path, size: int) -> None:
    """A sparse file: the header, a huge tensor of zeros that takes no disk, the small ones."""
    header, at = {}, size
    header["fc.weight"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    for name, value in SMALL.items():
        end = at + value.nbytes
        dtype = "I64" if value.dtype == torch.int64 else "F32"
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.seek(size, 1)
        for value in SMALL.values():
            file.write(value.numpy().tobytes())


def large_zip(path: Path, size: int) -> None:
    """As torch.save writes it, but that the values are skipped over: holes, which read as 0."""
    with torch.serialization.skip_data():
        torch.save({"fc.weight": torch.empty(size // 4), **SMALL}, path)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("format_", ["safetensors", "zip"])
def test_a_file_of_gigabytes_needs_no_more_memory_than_its_statistics(
    tmp_path: Path, format_: str
) -> None:
    size = 5 << 30
    path = tmp_path / "large"
    (large_safetensors if format_ == "safetensors" else large_zip)(path, size)
    ran = subprocess.run(
        [sys.executable, "-c", LARGE, str(path)], capture_output=True, text=True, check=True
    )
    layers, found_bytes, peak, torch_loaded = json.loads(ran.stdout)
    assert layers == 1
    assert found_bytes > size
    assert path.stat().st_blocks * 512 < 1 << 28  # it is sparse
    assert peak < 300
    assert not torch_loaded
