"""New statistics in a copy of a checkpoint: every other byte is the original's."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bytes_of_files import (
    assert_differs_only_in,
    checksum_ranges,
    differing_bytes,
    members_that_differ,
    ranges_of,
    raw,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bnaudit.checkpoints.load import load_checkpoint
from bnaudit.checkpoints.patch import PatchReport, patch_checkpoint
from bnaudit.checkpoints.restore import restore_checkpoint
from bnaudit.errors import InputError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
STATISTICS = ("running_mean", "running_var")


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.BatchNorm2d(5))
    for layer in (model[1], model[3]):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return model


def new_values(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """New float64 statistics for every layer in a state dict."""
    return {
        name: torch.rand(value.shape, dtype=torch.float64) + 0.1
        for name, value in state.items()
        if name.endswith(STATISTICS)
    }


def patch(path: Path, values: dict[str, Tensor], key: str = "", **options: object) -> PatchReport:
    target = path.with_name(f"{path.stem}.recalibrated{path.suffix}")
    return patch_checkpoint(path, target, values, key=key, provenance={}, **options)


def save(content: object, path: Path, format_: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=format_ == "zip")
    return path


def assert_holds(state: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        assert torch.equal(state[name], value.to(state[name].dtype)), name


class Gone:
    """A class of a library that is not there when the file is read."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> object:
        return Gone, (self.value,), {"more": [1, 2]}, iter([3]), iter([("a", 4)])


Gone.__module__ = "a_library_of_the_past"
Gone.__qualname__ = "Gone"


def with_gone_class(content: dict[str, object], path: Path, format_: str) -> Path:
    """Save a checkpoint with an object whose class nobody can import afterwards."""
    module = types.ModuleType(Gone.__module__)
    module.Gone = Gone
    sys.modules[module.__name__] = module
    try:
        return save(content | {"trainer": Gone({"lr": 0.1})}, path, format_)
    finally:
        del sys.modules[module.__name__]


def training_checkpoint(model: nn.Module) -> dict[str, object]:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "state_dict": nn.DataParallel(model.eval()).state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "history": np.arange(5.0),
        "path": Path("runs"),
    }


def test_only_statistics_and_their_checksums_change_in_a_zip(tmp_path: Path) -> None:
    content = training_checkpoint(network())
    state = content["state_dict"]
    path = with_gone_class(content, tmp_path / "a.pth", "zip")
    values = new_values(state)
    report = patch(path, values, "state_dict")
    assert report.in_place
    assert report.notes == ()
    before, after = path.read_bytes(), report.target.read_bytes()
    statistics = ranges_of(before, [state[name] for name in values])
    changed = members_that_differ(path, report.target)
    assert len(changed) == len(values)
    assert_differs_only_in(before, after, [*statistics, *checksum_ranges(path, changed)])
    with zipfile.ZipFile(report.target) as archive:
        assert archive.testzip() is None
    assert report.sha256 == hashlib.sha256(after).hexdigest()


def test_a_patched_zip_holds_the_new_values_and_the_old_rest(tmp_path: Path) -> None:
    content = training_checkpoint(network())
    values = new_values(content["state_dict"])
    report = patch(save(content, tmp_path / "a.pth"), values, "state_dict")
    for mapped in (False, True):
        read = torch.load(report.target, weights_only=False, mmap=mapped)
        assert list(read) == list(content)
        assert_holds(read["state_dict"], values)
        for name, value in content["state_dict"].items():
            if name not in values:
                assert torch.equal(read["state_dict"][name], value)
        assert read["state_dict"]._metadata == content["state_dict"]._metadata
        assert torch.equal(read["rng"], content["rng"])


def test_only_statistics_change_in_a_legacy_file(tmp_path: Path) -> None:
    content = training_checkpoint(network())
    state = content["state_dict"]
    path = with_gone_class(content, tmp_path / "a.th", "legacy")
    values = new_values(state)
    report = patch(path, values, "state_dict")
    assert report.in_place
    allowed = ranges_of(path.read_bytes(), [state[name] for name in values])
    assert_differs_only_in(path.read_bytes(), report.target.read_bytes(), allowed)


def test_a_patched_legacy_file_holds_the_new_values(tmp_path: Path) -> None:
    content = training_checkpoint(network())
    values = new_values(content["state_dict"])
    report = patch(save(content, tmp_path / "a.th", "legacy"), values, "state_dict")
    assert_holds(torch.load(report.target, weights_only=False)["state_dict"], values)


def test_only_statistics_change_in_safetensors(tmp_path: Path) -> None:
    path, state = tmp_path / "a.safetensors", network().state_dict()
    save_file(state, path, metadata={"format": "pt", "author": "x"})
    values = new_values(state)
    report = patch(path, values)
    assert report.in_place
    allowed = ranges_of(path.read_bytes(), [state[name] for name in values])
    assert_differs_only_in(path.read_bytes(), report.target.read_bytes(), allowed)
    assert_holds(load_file(report.target), values)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_a_published_legacy_file_keeps_its_cuda_tags(tmp_path: Path, name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip("the shared data are not there")
    path = tmp_path / name
    path.write_bytes((SHARED / name).read_bytes())
    state = torch.load(path, map_location="cpu")["state_dict"]
    values = new_values(state)
    report = patch(path, values, "state_dict")
    assert report.in_place
    before, after = path.read_bytes(), report.target.read_bytes()
    assert before.count(b"cuda:0") == after.count(b"cuda:0") > 0
    size = sum(value.numel() * 4 for value in values.values())
    assert 0 < len(differing_bytes(before, after)) <= size
    read = torch.load(report.target, map_location="cpu")["state_dict"]
    assert_holds(read, values)
    assert all(torch.equal(read[n], v) for n, v in state.items() if n not in values)
    assert restore_checkpoint(report.target).identical


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("format_", ["zip", "legacy", "safetensors"])
def test_values_are_cast_to_the_type_in_the_file(
    tmp_path: Path, dtype: torch.dtype, format_: str
) -> None:
    state = {n: v.to(dtype) for n, v in network().state_dict().items() if v.is_floating_point()}
    path = tmp_path / "a.bin"
    if format_ == "safetensors":
        save_file(state, path)
    else:
        save(state, path, format_)
    values = new_values(state)
    report = patch(path, values)
    assert report.in_place
    read = load_file(report.target) if format_ == "safetensors" else torch.load(report.target)
    assert {value.dtype for value in read.values()} == {dtype}
    assert_holds(read, values)


def test_a_value_that_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = save({"running_var": torch.ones(2).half(), "w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"running_var does not fit torch.float16"):
        patch(path, {"running_var": torch.tensor([1.0, 1e5])})
    with pytest.raises(InputError, match="running_var is not finite"):
        patch(path, {"running_var": torch.tensor([1.0, float("nan")])})
    with pytest.raises(InputError, match=r"has shape \(2,\) there, not \(3,\)"):
        patch(path, {"running_var": torch.ones(3)})
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_views_into_one_storage_are_patched_where_they_lie(tmp_path: Path) -> None:
    flat = torch.randn(40)
    state = {
        "conv.weight": flat[:20].view(2, 10),
        "bn.running_mean": flat[20:30:2],
        "bn.running_var": flat[21:31:2],
        "bn.bias": flat[31:],
    }
    for format_ in ("zip", "legacy"):
        path = save(state, tmp_path / f"{format_}.pt", format_)
        values = new_values(state)
        report = patch(path, values)
        assert report.in_place
        read = torch.load(report.target)
        assert_holds(read, values)
        assert torch.equal(read["conv.weight"], state["conv.weight"])
        assert torch.equal(read["bn.bias"], state["bn.bias"])
        (there,) = ranges_of(path.read_bytes(), [flat])
        statistics = range(there.start + 80, there.start + 120)
        checksums = []
        if format_ == "zip":
            checksums = checksum_ranges(path, members_that_differ(path, report.target))
        assert_differs_only_in(
            path.read_bytes(), report.target.read_bytes(), [statistics, *checksums]
        )


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    offset=st.integers(0, 7),
    step=st.integers(1, 3),
    channels=st.integers(0, 6),
    format_=st.sampled_from(["zip", "legacy"]),
    transposed=st.booleans(),
)
def test_any_view_is_patched_where_it_lies(
    tmp_path: Path, offset: int, step: int, channels: int, format_: str, transposed: bool
) -> None:
    flat = torch.arange(60, dtype=torch.float64)
    view = flat[offset : offset + 2 * channels * step : step].view(2, channels)
    view = view.t() if transposed else view
    path = save({"a.running_mean": view, "flag": torch.ones(3)}, tmp_path / "a.pt", format_)
    new = torch.rand(view.shape, dtype=torch.float64)
    report = patch(path, {"a.running_mean": new}, overwrite=True)
    assert report.in_place
    assert torch.equal(torch.load(report.target)["a.running_mean"], new)
    expected = flat.clone()
    expected.as_strided(view.shape, view.stride(), view.storage_offset()).copy_(new)
    assert path.read_bytes().replace(raw(flat), raw(expected)).count(raw(expected)) == 1
    assert report.target.read_bytes().count(raw(expected)) == 1


def test_a_tied_layer_is_patched_under_both_names(tmp_path: Path) -> None:
    shared = nn.BatchNorm1d(3)
    model = nn.Sequential(shared, shared)
    path = save(model.state_dict(), tmp_path / "a.pt")
    names = load_checkpoint(nn.Sequential(shared, shared), path).names
    mean = torch.randn(3)
    report = patch(path, {names[f"{i}.running_mean"]: mean for i in (0, 1)})
    assert report.in_place
    assert_holds(torch.load(report.target), {"0.running_mean": mean, "1.running_mean": mean})


@pytest.mark.parametrize("format_", ["zip", "legacy"])
def test_a_pickled_model_is_patched_without_its_class(tmp_path: Path, format_: str) -> None:
    model = nn.Sequential(network(), nn.Linear(2, 2))
    path = save({"model": model, "epoch": 1}, tmp_path / "a.pt", format_)
    values = new_values(model.state_dict())
    assert "0.1.running_mean" in values
    report = patch(path, values, "model")
    assert report.in_place
    read = torch.load(report.target, weights_only=False)["model"]
    assert_holds(read.state_dict(), values)


def test_nothing_in_the_file_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Runs:
        def __reduce__(self) -> object:
            return exec, (f"open({str(marker)!r}, 'w').close()",)

    state = {"bn.running_mean": torch.randn(3), "w": torch.randn(2)}
    for format_ in ("zip", "legacy"):
        path = save({"state_dict": state, "x": Runs()}, tmp_path / f"{format_}.pt", format_)
        report = patch(path, new_values(state), "state_dict")
        assert report.in_place
        assert restore_checkpoint(report.target).identical
    assert not marker.exists()


def test_checksums_in_every_place_of_a_zip_are_right(tmp_path: Path) -> None:
    """Python's writer puts them ahead of the data, its streaming one behind, with zip64 or not."""
    state = {"bn.running_mean": torch.randn(3), "w": torch.randn(2)}
    original = save(state, tmp_path / "original.pt")
    values = new_values(state)
    for name, streamed, zip64 in (
        ("plain", False, False),
        ("wide", False, True),
        ("streamed", True, False),
        ("streamed_wide", True, True),
    ):
        path = tmp_path / f"{name}.pt"
        repacked(original, path, streamed=streamed, zip64=zip64)
        assert torch.equal(torch.load(path)["w"], state["w"])
        report = patch(path, values)
        assert report.in_place, report.notes
        assert_holds(torch.load(report.target), values)
        with zipfile.ZipFile(report.target) as archive:
            assert archive.testzip() is None
        changed = members_that_differ(path, report.target)
        allowed = [
            *ranges_of(path.read_bytes(), [state["bn.running_mean"]]),
            *checksum_ranges(path, changed),
        ]
        before, after = path.read_bytes(), report.target.read_bytes()
        assert_differs_only_in(before, after, allowed)
        # The checksum stands twice, and in no place the old one is left.
        with zipfile.ZipFile(path) as archive:
            (old,) = (struct.pack("<I", archive.getinfo(name).CRC) for name in changed)
        assert before.count(old) == 2
        assert after.count(old) == 0


class Pipe(io.RawIOBase):
    """A file that cannot be sought in, so the writer puts sizes and checksums behind the data."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.content += bytes(data)
        return len(bytes(data))


def repacked(path: Path, new: Path, *, streamed: bool, zip64: bool) -> None:
    target = Pipe() if streamed else io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as archive:
        for name in old.namelist():
            with archive.open(name, "w", force_zip64=zip64) as member:
                member.write(old.read(name))
    new.write_bytes(bytes(target.content) if isinstance(target, Pipe) else target.getvalue())


def test_a_zip_without_true_checksums_is_patched_all_the_same(tmp_path: Path) -> None:
    state = {"bn.running_mean": torch.randn(3), "w": torch.randn(2)}
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = save(state, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    values = new_values(state)
    report = patch(path, values)
    assert report.in_place
    assert_holds(torch.load(report.target), values)
    assert restore_checkpoint(report.target).identical


def test_a_big_endian_zip_is_patched_in_its_byte_order(tmp_path: Path) -> None:
    state = {"bn.running_mean": torch.randn(3), "w": torch.randn(2)}
    little, path = save(state, tmp_path / "little.pt"), tmp_path / "big.pt"
    with zipfile.ZipFile(little) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "/data/" in name:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert torch.equal(torch.load(path)["w"], state["w"])
    values = new_values(state)
    report = patch(path, values)
    assert report.in_place
    assert_holds(torch.load(report.target), values)
    kept = json.loads(report.sidecar.read_text())["before"]["bn.running_mean"]
    assert kept["dtype"] == "float32"
    assert restore_checkpoint(report.target).identical


def test_pickle_protocols_of_all_versions_are_patched(tmp_path: Path) -> None:
    state = network().state_dict()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"{protocol}.pt"
        torch.save({"state_dict": state}, path, pickle_protocol=protocol)
        values = new_values(state)
        report = patch(path, values, "state_dict")
        assert report.in_place
        read = torch.load(report.target, weights_only=False)["state_dict"]
        assert_holds(read, values)


def test_a_view_of_a_storage_in_a_very_old_file_is_patched_where_it_lies(tmp_path: Path) -> None:
    """torch before 0.4 wrote views of storages; it is still read, and no longer written."""
    flat = torch.arange(10.0)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if isinstance(value, str) and value.startswith("view at "):
                start = int(value.removeprefix("view at "))
                view = (f"view {start}", start, 5)
                return ("storage", torch.FloatStorage, "7", "cuda:0", 10, view)
            return None

    class Rebuilt:
        def __init__(self, view: str, offset: int) -> None:
            self.arguments = (view, offset, (3,), (1,))

        def __reduce__(self) -> object:
            return torch._utils._rebuild_tensor, self.arguments

    buffer = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, buffer, 2)
    state = {"bn.running_mean": Rebuilt("view at 1", 0), "bn.running_var": Rebuilt("view at 4", 1)}
    Pickler(buffer, 2).dump(state)
    pickle.dump(["7"], buffer, 2)
    buffer.write(struct.pack("<q", 10) + raw(flat))
    path = tmp_path / "a.th"
    path.write_bytes(buffer.getvalue())
    read = torch.load(path, map_location="cpu")
    assert torch.equal(read["bn.running_mean"], flat[1:4])
    assert torch.equal(read["bn.running_var"], flat[5:8])
    values = new_values(read)
    report = patch(path, values)
    assert report.in_place
    assert_holds(torch.load(report.target, map_location="cpu"), values)
    (there,) = ranges_of(path.read_bytes(), [flat])
    allowed = [range(there.start + 4, there.start + 16), range(there.start + 20, there.start + 32)]
    assert_differs_only_in(path.read_bytes(), report.target.read_bytes(), allowed)
