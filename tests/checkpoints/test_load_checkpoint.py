"""A checkpoint file into a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from bnaudit.checkpoints.load import load_checkpoint
from bnaudit.errors import InputError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def network(classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes))


def trained() -> nn.Sequential:
    model = network()
    model[1](torch.randn(8, 4, 2, 2))
    return model


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_data_parallel_checkpoint_is_loaded_and_reported(tmp_path: Path) -> None:
    model, path = trained(), tmp_path / "a.pt"
    state = nn.DataParallel(model).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state, "epoch": 3}, path)
    fresh = network()
    report = load_checkpoint(fresh, path)
    assert_same(fresh.state_dict(), model.state_dict())
    assert (report.key, report.other_keys) == ("state_dict", ("state_dict_ema",))
    assert (report.stripped, report.added, report.loaded) == ("module.", "", 9)
    assert (report.path, report.format) == (str(path), "zip")
    assert not report.missing
    assert not report.without_counter


def test_safetensors_are_loaded(tmp_path: Path) -> None:
    model, path = trained(), tmp_path / "a.safetensors"
    save_file(model.state_dict(), path)
    fresh = network()
    assert load_checkpoint(fresh, path).format == "safetensors"
    assert_same(fresh.state_dict(), model.state_dict())


def test_a_counter_that_the_file_lacks_stays_zero(tmp_path: Path) -> None:
    state = trained().state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "a.pt")
    fresh = network()
    report = load_checkpoint(fresh, tmp_path / "a.pt")
    assert fresh[1].num_batches_tracked == 0
    assert report.without_counter == ("1",)
    assert report.loaded == 8


def test_a_mismatch_is_an_error_that_leaves_the_model_alone(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "a.pt")
    model = network(classes=7)
    before = state_of(model)
    with pytest.raises(InputError, match="2 of another shape") as caught:
        load_checkpoint(model, tmp_path / "a.pt")
    assert str(caught.value).startswith(str(tmp_path))
    assert_same(model.state_dict(), before)


def test_an_allowed_mismatch_loads_what_fits_and_says_what_stayed(tmp_path: Path) -> None:
    saved = trained()
    torch.save(saved.state_dict(), tmp_path / "a.pt")
    model = network(classes=7)
    head = model[2].weight.detach().clone()
    report = load_checkpoint(model, tmp_path / "a.pt", allow_mismatch=True)
    assert torch.equal(model[2].weight, head)
    assert torch.equal(model[1].running_mean, saved[1].running_mean)
    assert report.mismatched[0] == "2.weight (5, 4) in the file, (7, 4) in the model"
    assert report.loaded == 7


def test_nothing_in_common_is_an_error_even_where_mismatches_are_allowed(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(7, 7)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="0 of 8 tensors match"):
        load_checkpoint(network(), tmp_path / "a.pt", allow_mismatch=True)


def test_a_pickled_model_is_loaded_where_it_is_trusted(tmp_path: Path) -> None:
    model = trained()
    torch.save({"ema": model}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="--trust-pickle"):
        load_checkpoint(network(), tmp_path / "a.pt")
    fresh = network()
    assert load_checkpoint(fresh, tmp_path / "a.pt", trust_pickle=True).key == "ema"
    assert_same(fresh.state_dict(), model.state_dict())


def test_lazy_layers_take_their_shape_from_the_file(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "a.pt")
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.LazyLinear(5))
    report = load_checkpoint(lazy, tmp_path / "a.pt")
    assert report.loaded == 9
    assert lazy[1].running_mean.shape == (4,)


class Renamed(nn.Module):
    """A module whose first version called its layer `old`; it refuses files without a version."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.new = nn.BatchNorm2d(3)

    def _load_from_state_dict(self, state: Any, prefix: str, meta: Any, *args: Any) -> None:
        if meta.get("version") not in (1, 2):
            raise ValueError("no version")
        if meta["version"] == 1:
            for name in [name for name in state if name.startswith(f"{prefix}old.")]:
                state[name.replace("old.", "new.")] = state.pop(name)
        super()._load_from_state_dict(state, prefix, meta, *args)


def test_a_module_may_rename_the_tensors_of_its_older_version(tmp_path: Path) -> None:
    model = nn.Sequential(Renamed(), network())
    model[0].new.running_mean += 3
    state = nn.DataParallel(model).state_dict()
    for name in [name for name in state if ".new." in name]:
        state[name.replace("new.", "old.")] = state.pop(name)
    state._metadata["module.0"]["version"] = 1
    torch.save(state, tmp_path / "a.pt")
    fresh = nn.Sequential(Renamed(), network())
    report = load_checkpoint(fresh, tmp_path / "a.pt")
    assert_same(fresh.state_dict(), model.state_dict())
    assert (report.loaded, report.missing, report.unexpected) == (14, (), ())


def test_a_failed_renaming_leaves_the_model_alone(tmp_path: Path) -> None:
    state = nn.Sequential(Renamed(), nn.Linear(2, 2)).state_dict()
    state["zzz"] = torch.ones(1)
    torch.save(state, tmp_path / "a.pt")
    model = nn.Sequential(Renamed(), nn.Linear(2, 2))
    before = state_of(model)
    with pytest.raises(InputError, match="1 unexpected in the file: zzz"):
        load_checkpoint(model, tmp_path / "a.pt")
    assert_same(model.state_dict(), before)


def test_a_module_that_needs_a_version_gets_its_own_from_a_file_without_any(tmp_path: Path) -> None:
    model = nn.Sequential(Renamed())
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert load_checkpoint(nn.Sequential(Renamed()), tmp_path / "a.safetensors").loaded == 5


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = (outputs - inputs) // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(shortcut, (0, 0, 0, 0, self.pad, self.pad)))


class CifarResNet(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for i in (1, 2, 3):
            first = Block(widths[i - 1], widths[i], 1 if i == 1 else 2)
            rest = [Block(widths[i], widths[i], 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{i}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")
@pytest.mark.parametrize(("name", "blocks"), [("resnet20-12fca82f", 3), ("resnet56-4bfd9763", 9)])
def test_published_cifar_resnets_load_without_their_counters(name: str, blocks: int) -> None:
    model = CifarResNet(blocks)
    report = load_checkpoint(model, SHARED / f"{name}.th")
    assert (report.key, report.stripped) == ("state_dict", "module.")
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(report.without_counter) == len(layers) == 6 * blocks + 1
    assert all(layer.running_mean.abs().sum() > 0 for layer in layers)
    with pytest.raises(InputError, match="unexpected" if blocks == 9 else "missing"):
        load_checkpoint(CifarResNet(12 - blocks), SHARED / f"{name}.th")


def test_names_in_the_file_are_reported_for_what_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    state = nn.DataParallel(trained()).state_dict()
    del state["module.1.num_batches_tracked"]
    torch.save(state, path)
    names = load_checkpoint(network(), path).names
    assert names["1.running_mean"] == "module.1.running_mean"
    assert "1.num_batches_tracked" not in names
    assert set(names.values()) == set(state)


def test_a_layer_used_under_two_names_has_a_name_in_the_file_under_both(tmp_path: Path) -> None:
    path, shared = tmp_path / "a.pt", nn.BatchNorm1d(3)
    torch.save({f"0.{name}": value for name, value in shared.state_dict().items()}, path)
    names = load_checkpoint(nn.Sequential(shared, shared), path).names
    assert names["0.running_var"] == names["1.running_var"] == "0.running_var"


class RenamesOlder(nn.Module):
    """Reads `old.running_mean` of older files into `norm.running_mean`; keeps the other names."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        for name in [name for name in state if name.startswith(f"{prefix}old.")]:
            state[name.replace("old.", "norm.", 1)] = state.pop(name)
        super()._load_from_state_dict(state, prefix, *args)


def test_a_tensor_that_its_module_renamed_has_no_name_in_the_file(tmp_path: Path) -> None:
    path, model = tmp_path / "a.pt", RenamesOlder()
    model.norm(torch.randn(5, 3))
    model.last(torch.randn(5, 3))
    state = {n.replace("norm.", "old."): value for n, value in model.state_dict().items()}
    torch.save(state, path)
    fresh = RenamesOlder()
    report = load_checkpoint(fresh, path)
    assert_same(fresh.state_dict(), model.state_dict())
    assert report.names["last.running_mean"] == "last.running_mean"
    assert not any(name.startswith("norm.") for name in report.names)
