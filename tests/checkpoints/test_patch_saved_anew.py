"""Where bytes cannot be patched in place, the content is saved anew, and the report says so."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bnaudit.checkpoints.patch import PatchReport, patch_checkpoint
from bnaudit.checkpoints.restore import restore_checkpoint
from bnaudit.errors import InputError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NEW = torch.tensor([1.5, 2.5, 3.5, 4.5])


def patch(
    path: Path, values: dict[str, Tensor], key: str = "", *, trust_pickle: bool = False
) -> PatchReport:
    return patch_checkpoint(
        path,
        path.with_name(f"{path.stem}.recalibrated{path.suffix}"),
        values,
        key=key,
        provenance={},
        trust_pickle=trust_pickle,
    )


def save(content: object, path: Path, format_: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=format_ == "zip")
    return path


def compressed(path: Path) -> Path:
    packed = path.with_name(f"packed_{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return packed


class NotPlain:
    """Something that only its own code can load."""


def test_a_compressed_archive_is_packed_anew_with_every_other_entry_as_it_was(
    tmp_path: Path,
) -> None:
    state = {"bn.running_mean": torch.randn(4), "w": torch.randn(4)}
    path = compressed(save({"state_dict": state, "x": NotPlain()}, tmp_path / "a.pt"))
    report = patch(path, {"bn.running_mean": NEW}, "state_dict")
    assert not report.in_place
    assert "compressed" in report.notes[0]
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(report.target) as new:
        assert new.testzip() is None
        assert new.namelist() == old.namelist()
        assert sum(new.read(name) != old.read(name) for name in old.namelist()) == 1
        assert all(info.compress_type == zipfile.ZIP_DEFLATED for info in new.infolist())
    read = torch.load(report.target, weights_only=False)["state_dict"]
    assert torch.equal(read["bn.running_mean"], NEW)
    assert torch.equal(read["w"], state["w"])
    restored = restore_checkpoint(report.target).target
    again = torch.load(restored, weights_only=False)["state_dict"]
    assert torch.equal(again["bn.running_mean"], state["bn.running_mean"])


@pytest.mark.parametrize("format_", ["zip", "legacy"])
def test_a_tensor_that_shares_its_memory_gets_its_own(tmp_path: Path, format_: str) -> None:
    flat = torch.randn(6)
    state = {"bn.running_mean": flat[:4], "other": flat[2:]}
    report = patch(save(state, tmp_path / "a.pt", format_), {"bn.running_mean": NEW})
    assert not report.in_place
    assert "bn.running_mean shares its memory" in report.notes[0]
    assert zipfile.is_zipfile(report.target) == (format_ == "zip")
    read = torch.load(report.target)
    assert list(read) == list(state)
    assert torch.equal(read["bn.running_mean"], NEW)
    assert torch.equal(read["other"], flat[2:])
    restored = restore_checkpoint(report.target)
    assert not restored.identical
    assert "saved anew" in restored.notes[0]
    assert torch.equal(torch.load(restored.target)["bn.running_mean"], flat[:4])


def test_one_tensor_in_two_state_dicts_changes_in_one_of_them(tmp_path: Path) -> None:
    mean = torch.randn(4)
    one = {"bn.running_mean": mean, "w": torch.ones(2)}
    path = save({"model": one, "ema": dict(one)}, tmp_path / "a.pt")
    report = patch(path, {"bn.running_mean": NEW}, "model")
    assert not report.in_place
    read = torch.load(report.target)
    assert torch.equal(read["model"]["bn.running_mean"], NEW)
    assert torch.equal(read["ema"]["bn.running_mean"], mean)


def test_one_state_dict_under_two_keys_is_one(tmp_path: Path) -> None:
    one = {"bn.running_mean": torch.randn(4), "w": torch.ones(2)}
    path = save({"model": one, "best": one}, tmp_path / "a.pt")
    report = patch(path, {"bn.running_mean": NEW}, "model")
    assert report.in_place
    assert torch.equal(torch.load(report.target)["best"]["bn.running_mean"], NEW)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_storage_that_something_else_uses_is_not_patched(tmp_path: Path) -> None:
    mean = torch.randn(4)
    path = save(
        {"m": {"running_mean": mean, "w": torch.ones(2)}, "s": mean.storage()},
        tmp_path / "a",
    )
    report = patch(path, {"running_mean": NEW}, "m")
    assert not report.in_place
    assert torch.equal(torch.tensor(torch.load(report.target)["s"].tolist()), mean)


def test_tied_names_with_different_values_come_apart(tmp_path: Path) -> None:
    shared = torch.randn(4)
    path = save({"a.running_mean": shared, "b.running_mean": shared}, tmp_path / "a.pt")
    report = patch(path, {"a.running_mean": NEW, "b.running_mean": -NEW})
    assert not report.in_place
    read = torch.load(report.target)
    assert torch.equal(read["a.running_mean"], NEW)
    assert torch.equal(read["b.running_mean"], -NEW)


@pytest.mark.parametrize("format_", ["zip", "legacy", "safetensors"])
def test_a_buffer_that_is_not_in_the_file_is_added_and_taken_out_again(
    tmp_path: Path, format_: str
) -> None:
    state = {"bn.running_mean": torch.randn(4), "w": torch.randn(2)}
    path = tmp_path / "a.bin"
    if format_ == "safetensors":
        save_file(state, path, metadata={"author": "x"})
        read: Any = load_file
    else:
        save(state, path, format_)
        read = torch.load
    report = patch(path, {"bn.running_mean": NEW, "bn.running_var": NEW.double()})
    assert not report.in_place
    assert "bn.running_var is not in the file" in report.notes[0]
    after = read(report.target)
    assert torch.equal(after["bn.running_var"], NEW)
    assert torch.equal(after["w"], state["w"])
    restored = read(restore_checkpoint(report.target).target)
    assert set(restored) == set(state)
    assert all(torch.equal(restored[name], state[name]) for name in state)
    if format_ == "safetensors":
        with safe_open(report.target, framework="pt") as file:
            assert file.metadata() == {"author": "x"}


@pytest.mark.shared
def test_what_a_published_legacy_file_loses_is_said(tmp_path: Path) -> None:
    source = SHARED / "resnet20-12fca82f.th"
    if not source.exists():
        pytest.skip("the shared data are not there")
    values = {"module.bn1.running_var": torch.ones(16), "module.bn9.running_var": NEW}
    target = tmp_path / "a.th"
    report = patch_checkpoint(source, target, values, key="state_dict", provenance={})
    assert not report.in_place
    assert any("cuda:0 became cpu" in note for note in report.notes)
    read = torch.load(target)["state_dict"]
    assert torch.equal(read["module.bn9.running_var"], NEW)
    assert all(value.device.type == "cpu" for value in read.values())


def test_plain_data_beside_the_weights_are_saved_as_what_they_were(tmp_path: Path) -> None:
    flat = torch.randn(6)
    content = {
        "state_dict": {"running_mean": flat[:4], "w": flat[2:]},
        "args": argparse.Namespace(lr=np.float64(0.1), history=np.arange(3), out=Path("runs")),
        "kinds": (int, np.float32, np.dtype("f4")),
        "mixed": [np.array([1, "x", None], dtype=object), {"a": (np.ones(2), {1})}],
    }
    path = save(content, tmp_path / "a.pt")
    report = patch(path, {"running_mean": NEW}, "state_dict")
    read = torch.load(report.target, weights_only=False)
    assert read["kinds"] == content["kinds"]
    assert read["args"].lr == 0.1
    assert type(read["args"].history) is np.ndarray
    assert read["args"].history.tolist() == [0, 1, 2]
    assert str(read["args"].out) == "runs"
    assert read["mixed"][0].tolist() == [1, "x", None]
    assert read["mixed"][1]["a"][0].tolist() == [1.0, 1.0]
    with zipfile.ZipFile(report.target) as archive:
        pickled = next(archive.read(n) for n in archive.namelist() if n.endswith("/data.pkl"))
    assert b"bnaudit" not in pickled.replace(b"recalibrated", b"")


def test_a_file_that_needs_code_is_saved_anew_only_where_that_is_trusted(tmp_path: Path) -> None:
    flat = torch.randn(6)
    content = {"m": {"running_mean": flat[:4], "w": flat[2:]}, "x": NotPlain()}
    path = save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"running_mean shares its memory.*--trust-pickle") as e:
        patch(path, {"running_mean": NEW}, "m")
    assert len(str(e.value).splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
    report = patch(path, {"running_mean": NEW}, "m", trust_pickle=True)
    read = torch.load(report.target, weights_only=False)
    assert isinstance(read["x"], NotPlain)
    assert torch.equal(read["m"]["running_mean"], NEW)


def test_a_pickled_model_that_shares_memory_is_saved_anew(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    mean = torch.randn(4)
    model[0].running_mean = mean
    path = save({"model": model, "copy": mean}, tmp_path / "a.pt")
    report = patch(path, {"0.running_mean": NEW}, "model", trust_pickle=True)
    assert not report.in_place
    read = torch.load(report.target, weights_only=False)
    assert torch.equal(read["model"][0].running_mean, NEW)
    assert torch.equal(read["copy"], mean)
    restored = restore_checkpoint(report.target, trust_pickle=True).target
    assert torch.equal(torch.load(restored, weights_only=False)["model"][0].running_mean, mean)


def test_odd_tensors_are_told_apart_from_missing_ones(tmp_path: Path) -> None:
    state = {"running_mean": torch.randn(4).to_sparse(), "w": torch.ones(2)}
    report = patch(save(state, tmp_path / "a.pt"), {"running_mean": NEW})
    assert not report.in_place
    assert "running_mean is rebuilt in a way of its own" in report.notes[0]
    assert torch.equal(torch.load(report.target)["running_mean"], NEW)


def test_a_key_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = save({"model": {"running_mean": torch.ones(4), "w": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="no state dict at 'ema'"):
        patch(path, {"running_mean": NEW}, "ema")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_an_expanded_tensor_becomes_a_whole_one(tmp_path: Path) -> None:
    path = save({"running_mean": torch.randn(1).expand(4), "w": torch.ones(2)}, tmp_path / "a.pt")
    report = patch(path, {"running_mean": NEW})
    assert not report.in_place
    assert "expanded" in report.notes[0]
    assert torch.equal(torch.load(report.target)["running_mean"], NEW)
