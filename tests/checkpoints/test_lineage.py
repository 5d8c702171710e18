"""The figures of a lineage against NumPy and torch, over files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bnaudit.checkpoints.contents import read_contents
from bnaudit.checkpoints.lineage import compare
from bnaudit.checkpoints.network_lineage import RECORD
from bnaudit.checkpoints.parents import Checkpoint
from bnaudit.checkpoints.sidecar import SUFFIX
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.errors import InputError
from bnaudit.results.lineage import Lineage
from bnaudit.stats.shift import squared_shift

State = dict[str, Tensor]


def net() -> nn.Sequential:
    """Two convolutions with BatchNorm, a linear layer; one forward in train mode."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.Flatten()
    )
    made(torch.randn(32, 3, 8, 8))
    return made


def perturbed(state: State, seed: int = 1) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.1 * torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else value + 5
        for name, value in state.items()
    }


def lineage(folder: Path, child: State, *parents: State, suffix: str = ".pt") -> Lineage:
    save = save_file if suffix == ".safetensors" else torch.save
    read = []
    for i, state in enumerate((child, *parents)):
        path = folder / f"{i}{suffix}"
        save(state, path)
        contents = read_contents(path)
        read.append(Checkpoint(contents, state_of_contents(contents)))
    return compare(read[0], read[1:])


def relative(after: list[Tensor], before: list[Tensor]) -> float:
    old = np.concatenate([t.double().numpy().ravel() for t in before])
    new = np.concatenate([t.double().numpy().ravel() for t in after])
    return float(np.linalg.norm(new - old) / np.linalg.norm(old))


def test_changes_of_weights_agree_with_numpy(tmp_path: Path) -> None:
    before = dict(net().state_dict())
    after = perturbed(before)
    found = lineage(tmp_path, after, before)
    first, second = found.layers

    def change(*names: str) -> float:
        return relative([after[name] for name in names], [before[name] for name in names])

    assert first.own.relative == pytest.approx(change("0.weight", "0.bias"), rel=1e-5)
    assert second.own.relative == pytest.approx(change("2.weight", "2.bias"), rel=1e-5)
    assert first.gamma.relative == pytest.approx(change("1.weight"), rel=1e-5)
    assert first.affine.relative == pytest.approx(change("1.weight", "1.bias"), rel=1e-5)
    upstream = change("0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias")
    assert second.upstream is not None
    assert second.upstream.relative == pytest.approx(upstream, rel=1e-5)
    assert second.largest_upstream == max(
        first.own.relative, first.affine.relative, second.own.relative
    )
    weights = [name for name in before if "running" not in name and "num" not in name]
    assert found.network.weights.relative == pytest.approx(change(*weights), rel=1e-5)
    assert found.network.weights.elements == sum(before[name].numel() for name in weights)
    assert found.network.weights.changed == found.network.weights.elements
    assert [layer.passes for layer in found.layers] == [5, 5]


def test_the_distance_is_the_estimation_shift_of_the_childs_estimates(tmp_path: Path) -> None:
    before = dict(net().state_dict())
    after = perturbed(before)
    for layer in lineage(tmp_path, after, before).layers:
        mean, var, new_mean, new_var = (
            state[f"{layer.name}.{what}"].double()
            for state in (before, after)
            for what in ("running_mean", "running_var")
        )
        shift = squared_shift(mean, var, new_mean, new_var, 1e-5)
        gamma = after[f"{layer.name}.weight"].double() ** 2
        distance = layer.distance
        assert distance.total == pytest.approx(float(shift.total.mean().sqrt()))
        assert distance.mean_part == pytest.approx(float(shift.mean_part.mean().sqrt()))
        assert distance.scale_part == pytest.approx(float(shift.scale_part.mean().sqrt()))
        weighted = (gamma * shift.total).sum() / gamma.sum()
        assert layer.output_distance.total == pytest.approx(float(weighted.sqrt()))


def test_what_is_equal_is_equal_in_every_bit(tmp_path: Path) -> None:
    state = dict(net().state_dict())
    found = lineage(tmp_path, state, state)
    assert found.weights_equal
    assert found.statistics_equal
    for layer in found.layers:
        assert (layer.statistics, layer.distance.total, layer.mixture) == ("equal", 0.0, None)
    one_bit = dict(state)
    one_bit["1.running_var"] = torch.nextafter(state["1.running_var"], torch.tensor(9.0))
    found = lineage(tmp_path, one_bit, state)
    assert [layer.statistics for layer in found.layers] == ["moved", "equal"]
    assert not found.statistics_equal


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stored", ["half", "float32"])
def test_rounding_to_half_precision_is_told_from_change(
    tmp_path: Path, dtype: torch.dtype, stored: str
) -> None:
    before = dict(net().state_dict())
    floats = [name for name, value in before.items() if value.is_floating_point()]
    half = before | {name: before[name].to(dtype) for name in floats}
    after = half if stored == "half" else half | {name: half[name].float() for name in floats}
    found = lineage(tmp_path, after, before)
    assert found.weights_equal
    assert [layer.statistics for layer in found.layers] == ["rounded", "rounded"]
    assert 0 < found.layers[0].distance.total < 0.01
    after = after | {"0.weight": after["0.weight"] * 1.5}
    found = lineage(tmp_path, after, before)
    assert found.layers[0].own.changed == before["0.weight"].numel()
    assert found.layers[1].own.equal


def test_a_value_that_became_nan_is_an_infinite_change(tmp_path: Path) -> None:
    before = dict(net().state_dict())
    after = {name: value.clone() for name, value in before.items()}
    after["2.weight"][0, 0, 0, 0] = torch.nan
    found = lineage(tmp_path, after, before)
    assert [layer.own.changed for layer in found.layers] == [0, 1]
    assert found.layers[1].own.relative == np.inf
    assert lineage(tmp_path, after, after).weights_equal


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stored", ["half", "float32"])
def test_a_weight_that_overflows_has_changed(
    tmp_path: Path, dtype: torch.dtype, stored: str
) -> None:
    before = dict(net().state_dict())
    before["2.weight"][0, 0, 0, 0] = -torch.finfo(torch.float32).max
    after = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in before.items()
    }
    if stored == "float32":
        after = {name: value.to(before[name].dtype) for name, value in after.items()}
    found = lineage(tmp_path, after, before)
    assert not found.weights_equal
    assert [layer.own.infinite for layer in found.layers] == [0, 1]
    assert (found.network.weights.changed, found.network.weights.relative) == (1, np.inf)
    # What was infinite before did not become so.
    assert lineage(tmp_path, after, after).network.weights.infinite == 0


@pytest.mark.parametrize(
    ("child", "parent"),
    [("", "module."), ("module.", ""), ("model.", "module."), ("_orig_mod.", "")],
)
def test_names_are_matched_over_a_change_of_prefix(tmp_path: Path, child: str, parent: str) -> None:
    before = dict(net().state_dict())
    after = {f"{child}{name}": value for name, value in perturbed(before).items()}
    found = lineage(tmp_path, after, {f"{parent}{name}": value for name, value in before.items()})
    assert [layer.name for layer in found.layers] == [f"{child}1", f"{child}3"]
    assert [layer.parent_name for layer in found.layers] == [f"{parent}1", f"{parent}3"]
    assert (found.added, found.removed) == ((), ())
    assert (found.network.added, found.network.removed) == ((), ())


def test_tensors_that_are_not_in_both_are_listed(tmp_path: Path) -> None:
    before = dict(net().state_dict())
    after = dict(before)
    after["lora.weight"] = torch.ones(4)
    after["0.bias"] = torch.ones(9)
    after["2.bias"] = before["2.bias"].double()
    del after["3.bias"]
    network = lineage(tmp_path, after, before).network
    assert network.added == ("lora.weight",)
    assert network.removed == ("3.bias",)
    assert network.reshaped == ("0.bias",)
    assert network.retyped == ("2.bias",)
    assert network.weights.unmatched == 2


def test_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    other = nn.Sequential(nn.Linear(2, 3)).state_dict()
    with pytest.raises(InputError, match=r"0\.pt: no tensor of it is in .*1\.pt"):
        lineage(tmp_path, dict(net().state_dict()), {f"x.{k}": v for k, v in other.items()})


def test_safetensors_are_known_to_keep_no_order(tmp_path: Path) -> None:
    before = dict(net().state_dict())
    found = lineage(tmp_path, perturbed(before), before, suffix=".safetensors")
    assert not found.network.ordered
    assert [layer.upstream for layer in found.layers] == [None, None]
    expected = lineage(tmp_path, perturbed(before), before)
    assert expected.network.ordered
    assert [x.own for x in found.layers] == [x.own for x in expected.layers]
    assert found.network.weights.elements == expected.network.weights.elements


def test_the_nearest_parent_is_the_one_that_has_the_statistics(tmp_path: Path) -> None:
    child, other = dict(net().state_dict()), perturbed(dict(net().state_dict()))
    same_statistics = {k: v if "running" in k else other[k] for k, v in child.items()}
    found = lineage(tmp_path, child, other, same_statistics)
    assert found.nearest == 1
    found = lineage(tmp_path, child, other, perturbed(other), perturbed(child, 3))
    assert found.nearest in (0, 2)  # not the one that was perturbed twice


def test_the_record_of_a_recalibration_has_the_name_that_is_looked_for() -> None:
    assert RECORD == SUFFIX


COMPARE = """
import json, resource, sys
limit = 150 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from bnaudit.verbs.inspect import inspect
found = inspect(sys.argv[1], against=[sys.argv[2]])
loaded = [name for name in ("torch", "scipy", "pandas", "matplotlib") if name in sys.modules]
print(json.dumps([found.against.weights.elements, found.layers[0].name, loaded]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_weights_larger_than_memory_are_compared_in_pieces(tmp_path: Path) -> None:
    elements = 50_000_000  # of float16: 100 MB a file, mostly holes; 200 MB as float32
    end = 16 + 2 * elements
    header = {
        "bn.running_mean": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "bn.running_var": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        "conv.weight": {"dtype": "F16", "shape": [2, elements // 2], "data_offsets": [16, end]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    paths = [tmp_path / "child.safetensors", tmp_path / "parent.safetensors"]
    for i, path in enumerate(paths):
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.write(np.array([0, i, 1, 1 + i], np.float32).tobytes())
            file.truncate(8 + len(text) + end)
    ran = subprocess.run(
        [sys.executable, "-c", COMPARE, *map(str, paths)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [elements, "bn", []]
