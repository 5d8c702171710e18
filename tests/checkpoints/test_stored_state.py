"""BatchNorm layers, found by the names of a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bnaudit.checkpoints.contents import read_contents
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.errors import InputError
from bnaudit.results.state import USUAL_EPS, State


def net() -> nn.Sequential:
    """Trained for three batches."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, affine=False)),
        nn.Flatten(),
        nn.LayerNorm(5 * 36),
        nn.Linear(5 * 36, 6),
        nn.BatchNorm1d(6),
    )
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 8, 8) + 1)
        model[1].weight.normal_()
    return model


def state_of(content: object, path: Path, **options: float) -> State:
    if path.suffix == ".safetensors":
        assert isinstance(content, dict)
        save_file(content, path)
    else:
        torch.save(content, path)
    return state_of_contents(read_contents(path), **options)


@pytest.mark.parametrize("file", ["a.pt", "a.safetensors"])
def test_layers_are_found_by_their_names_with_all_that_is_stored(tmp_path: Path, file: str) -> None:
    model = net()
    state = state_of(dict(model.state_dict()), tmp_path / file)
    if file == "a.pt":
        assert [layer.name for layer in state.layers] == ["1", "2.1", "6"]
    for name in ("1", "2.1", "6"):
        layer, module = state[name], model.get_submodule(name)
        np.testing.assert_array_equal(layer.running_mean, module.running_mean.double().numpy())
        np.testing.assert_array_equal(layer.running_var, module.running_var.double().numpy())
        assert (layer.num_batches_tracked, layer.dtype) == (3.0, "float32")
        assert (layer.eps, layer.eps_known, layer.momentum) == (USUAL_EPS, False, None)
        assert (layer.kind, layer.tracks) == (None, None)
    assert state["2.1"].gamma is None
    assert state["2.1"].beta is None
    np.testing.assert_array_equal(state["1"].gamma, model[1].weight.detach().double().numpy())
    np.testing.assert_array_equal(state["1"].beta, model[1].bias.detach().double().numpy())
    assert state.source == str(tmp_path / file)


def test_an_eps_that_is_given_is_known_and_one_that_is_not_is_assumed(tmp_path: Path) -> None:
    content = net().state_dict()
    assert {x.eps for x in state_of(content, tmp_path / "a.pt", eps=1e-3).layers} == {1e-3}
    assert all(x.eps_known for x in state_of(content, tmp_path / "a.pt", eps=1e-3).layers)


def test_a_pickled_model_tells_its_own_eps_and_kinds(tmp_path: Path) -> None:
    state = state_of(net(), tmp_path / "a.pt", eps=0.5)
    assert [(x.name, x.eps, x.kind) for x in state.layers] == [
        ("1", 1e-3, "BatchNorm2d"),
        ("2.1", 1e-5, "BatchNorm2d"),
        ("6", 1e-5, "BatchNorm1d"),
    ]
    assert all(x.eps_known and x.momentum == 0.1 and x.tracks for x in state.layers)


def test_a_layer_that_is_the_whole_checkpoint_has_no_name(tmp_path: Path) -> None:
    state = state_of(nn.BatchNorm1d(3).state_dict(), tmp_path / "a.pt")
    assert [layer.name for layer in state.layers] == [""]


def test_half_precision_and_averaged_counts_are_kept_as_they_are(tmp_path: Path) -> None:
    content = dict(nn.BatchNorm2d(3).bfloat16().state_dict())
    content["running_var"] = torch.tensor([0.5, 1e-3, 7.0]).bfloat16()
    content["num_batches_tracked"] = torch.tensor(12.5)
    layer = state_of(content, tmp_path / "a.pt")[""]
    assert (layer.dtype, layer.num_batches_tracked) == ("bfloat16", 12.5)
    np.testing.assert_array_equal(layer.running_var, content["running_var"].double().numpy())


def test_what_only_looks_like_a_layer_is_none(tmp_path: Path) -> None:
    content = {
        "alone.running_mean": torch.zeros(3),
        "differ.running_mean": torch.zeros(3),
        "differ.running_var": torch.ones(4),
        "matrix.running_mean": torch.zeros(3, 3),
        "matrix.running_var": torch.ones(3, 3),
        "empty.running_mean": torch.zeros(0),
        "empty.running_var": torch.ones(0),
        "my_running_mean": torch.zeros(3),
        "my_running_var": torch.ones(3),
    }
    assert state_of(content, tmp_path / "a.pt").layers == ()


def test_a_weight_of_another_shape_is_not_gamma(tmp_path: Path) -> None:
    content = {**nn.BatchNorm1d(3).state_dict(), "weight": torch.ones(3, 3), "bias": torch.ones(4)}
    layer = state_of(content, tmp_path / "a.pt")[""]
    assert (layer.gamma, layer.beta) == (None, None)


def test_an_instance_norm_that_says_so_is_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3))
    assert [layer.name for layer in state_of(model, tmp_path / "a.pt").layers] == ["1"]


def test_a_number_shown_over_and_over_is_no_layer(tmp_path: Path) -> None:
    endless = torch.zeros(1).expand(1 << 50)
    content = {"bn.running_mean": endless, "bn.running_var": endless, "w": torch.ones(2)}
    with pytest.raises(InputError, match="more than the file has bytes"):
        state_of(content, tmp_path / "a.pt")
    few = torch.ones(1).expand(64)
    state = state_of({"bn.running_mean": few, "bn.running_var": few}, tmp_path / "a.pt")
    assert state["bn"].running_var.tolist() == [1.0] * 64


def affine(names: list[str]) -> Mapping[str, Tensor]:
    return {f"{name}.{leaf}": torch.ones(3) for name in names for leaf in ("weight", "bias")}


def test_layers_without_statistics_are_told_by_their_names(tmp_path: Path) -> None:
    named = [
        "bn",
        "layer1.0.bn1",
        "conv1_bn",
        "BatchNorm2d_0",
        "batch_norm",
        "stem.bn2.0",
        "a.bn2a",
    ]
    others = ["norm", "ln", "layernorm", "encoder.norm1", "gn1", "fc", "bn1.ln", "subnet"]
    state = state_of(dict(affine([*named, *others])), tmp_path / "a.pt")
    assert state.layers == ()
    assert list(state.without_statistics) == named


def test_layers_with_statistics_or_matrices_are_not_without(tmp_path: Path) -> None:
    content = {f"bn1.{k}": v for k, v in nn.BatchNorm1d(3).state_dict().items()}
    content |= {"bn2.weight": torch.ones(3, 3), "bn2.bias": torch.ones(3)}
    content |= {"bn3.weight": torch.ones(3)}
    assert state_of(content, tmp_path / "a.pt").without_statistics == ()


def test_a_pickled_model_tells_which_layers_track_nothing(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.LayerNorm(3))
    assert state_of(model, tmp_path / "a.pt").without_statistics == ("0",)
