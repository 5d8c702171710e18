"""Inspecting a checkpoint: the figures agree with NumPy, on real files and on made-up faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import bnaudit
from bnaudit.checkpoints.contents import read_contents
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.engine.layers import find_layers
from bnaudit.errors import InputError
from bnaudit.findings.policy import Policy
from bnaudit.results.inspection import Histogram, InspectedLayer, Inspection, Range
from bnaudit.verbs.stored_state import state_of_model

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
EPS = 1e-5


def check(found: InspectedLayer, arrays: dict[str, np.ndarray], eps: float = EPS) -> None:
    """Every figure of a layer whose values are all finite, from its arrays in float64."""
    mean, variance = arrays["running_mean"], arrays["running_var"]
    gamma, beta = arrays["weight"], arrays["bias"]
    assert found.channels == len(mean)
    for values, stated in ((mean, found.running_mean), (variance, found.running_var)):
        assert stated == Range(values.min(), np.median(values), values.max())
    assert found.gamma is not None
    assert found.gamma.maximum == np.abs(gamma).max()
    assert found.gamma.median == np.median(np.abs(gamma))
    assert found.largest_scale == pytest.approx((np.abs(gamma) / (variance + eps) ** 0.5).max())
    assert found.dead == np.count_nonzero(variance < eps)
    assert found.non_finite == 0
    assert np.isfinite(beta).all()
    check_histogram(found.log_variance, np.log10(variance))
    check_histogram(found.mean_in_deviations, mean / np.sqrt(variance))

    assert -8 <= found.log_variance.low < 4
    assert -4 <= found.mean_in_deviations.low < 4


def check_histogram(found: Histogram, values: np.ndarray) -> None:
    edges = found.low + found.width * np.arange(len(found.counts) + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    assert found.counts == tuple(counts)
    assert found.low == found.width * np.floor(max(values.min(), found.low) / found.width)
    assert min(found.counts[0], found.counts[-1]) > 0


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the shared folder is not here")
@pytest.mark.parametrize(
    ("name", "layers", "channels"),
    [("resnet20-12fca82f.th", 19, 688), ("resnet56-4bfd9763.th", 55, 2032)],
)
def test_figures_of_a_trained_resnet_agree_with_numpy(
    name: str, layers: int, channels: int
) -> None:
    found = bnaudit.inspect(SHARED / name)
    state = torch.load(SHARED / name, map_location="cpu", weights_only=True)["state_dict"]
    assert len(found.layers) == layers
    assert sum(layer.channels for layer in found.layers) == channels
    for layer in found.layers:
        leaves = ("running_mean", "running_var", "weight", "bias")
        check(layer, {leaf: state[f"{layer.name}.{leaf}"].double().numpy() for leaf in leaves})
        assert (layer.num_batches_tracked, layer.dtype, layer.eps_known) == (None, "float32", False)
    assert found.file.format == "legacy"
    assert found.file.key == "state_dict"
    assert found.file.tensors == len(state)
    assert found.file.elements == sum(value.numel() for value in state.values())
    assert found.file.bytes == (SHARED / name).stat().st_size


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the shared folder is not here")
def test_counts_that_a_trained_resnet_lacks_are_information() -> None:
    found = bnaudit.inspect(SHARED / "resnet20-12fca82f.th")
    assert {finding.severity for finding in found.findings} == {"info"}
    assert "no-batches-counted" in {finding.name for finding in found.findings}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)
    )
    for _ in range(100):
        net(torch.randn(4, 3, 8, 8))
    return net


def inspected(content: object, folder: Path, **options: object) -> Inspection:
    torch.save(content, folder / "a.pt")
    return bnaudit.inspect(folder / "a.pt", **options)  # type: ignore[arg-type]


def test_dead_channels_follow_eps_and_the_threshold(tmp_path: Path) -> None:
    state = model().state_dict()
    state["1.running_var"][:3] = torch.tensor([0.0, 5e-6, 5e-4])
    assert inspected(state, tmp_path).layer("1").dead == 2
    assert inspected(state, tmp_path, eps=1e-3).layer("1").dead == 3
    policy = Policy(thresholds={"BN012": {"multiple_of_eps": 100}})
    found = inspected(state, tmp_path, policy=policy)
    assert found.layer("1").dead == 3
    assert found.layer("4").dead == 0
    dead = next(finding for finding in found.findings if finding.code == "BN012")
    assert (dead.layers, dead.evidence["channels"]) == (("1",), 3)


def test_values_that_are_not_finite_are_counted_and_left_out_of_ranges(tmp_path: Path) -> None:
    state = model().state_dict()
    state["1.running_mean"][0] = float("nan")
    state["1.running_var"][1] = float("inf")
    state["1.weight"][1] = float("nan")
    layer = inspected(state, tmp_path).layer("1")
    mean, variance = state["1.running_mean"].double(), state["1.running_var"].double()
    assert layer.non_finite == 2
    assert layer.running_mean == Range(mean[1:].min(), np.median(mean[1:]), mean[1:].max())
    assert layer.running_var is not None
    assert layer.running_var.maximum == variance[[0, 2, 3]].max()
    assert sum(layer.log_variance.counts) == 3
    assert sum(layer.mean_in_deviations.counts) == 2


def test_a_layer_without_one_finite_value_has_no_figures_and_breaks_nothing(tmp_path: Path) -> None:
    state = model().state_dict()
    for leaf in ("running_mean", "running_var", "weight"):
        state[f"1.{leaf}"].fill_(float("nan"))
    layer = inspected(state, tmp_path).layer("1")
    assert (layer.running_mean, layer.running_var, layer.gamma) == (None, None, None)
    assert (layer.largest_scale, layer.non_finite) == (None, 4)


def test_variances_at_and_below_zero_are_dead_or_undefined_and_not_an_accident(
    tmp_path: Path,
) -> None:
    state = model().state_dict()
    state["1.running_var"][:2] = torch.tensor([0.0, -1.0])
    found = inspected(state, tmp_path)
    assert found.layer("1").dead == 1
    histogram = found.layer("1").log_variance
    assert (histogram.low, histogram.counts[0], sum(histogram.counts)) == (-8, 1, 3)
    assert "error" in {finding.severity for finding in found.findings}


def test_eps_is_said_to_be_assumed_given_or_known(tmp_path: Path) -> None:
    net = model()
    assert "assumed to be 1e-05" in inspected(net.state_dict(), tmp_path).notes[0]
    assert inspected(net.state_dict(), tmp_path, eps=1e-3).notes == ()
    assert inspected(net, tmp_path).notes == ()
    notes = inspected(net, tmp_path, eps=1e-3).notes
    assert notes == ("the model in the file has its own eps, 1e-05, which --eps does not replace",)


def test_a_pickled_model_is_read_although_its_class_is_gone(tmp_path: Path) -> None:
    gone = type("Gone", (nn.Sequential,), {"__module__": "bnaudit_no_such_module"})
    import sys
    import types

    sys.modules["bnaudit_no_such_module"] = types.ModuleType("bnaudit_no_such_module")
    sys.modules["bnaudit_no_such_module"].Gone = gone  # type: ignore[attr-defined]
    torch.save(gone(nn.BatchNorm2d(3, momentum=0.01)), tmp_path / "a.pt")
    del sys.modules["bnaudit_no_such_module"]
    layer = bnaudit.inspect(tmp_path / "a.pt").layer("0")
    assert (layer.kind, layer.momentum, layer.eps_known) == ("BatchNorm2d", 0.01, True)


def test_a_pickled_model_tells_what_the_model_in_memory_tells(tmp_path: Path) -> None:
    net = torchvision.models.shufflenet_v2_x0_5(weights=None)
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 64))
    torch.save(net, tmp_path / "model.pt")
    torch.save({"state_dict": net.state_dict()}, tmp_path / "state.pt")
    in_memory = {layer.name: layer for layer in state_of_model(find_layers(net), "").layers}
    whole = state_of_contents(read_contents(tmp_path / "model.pt")).layers
    alone = state_of_contents(read_contents(tmp_path / "state.pt")).layers
    assert [layer.name for layer in whole] == [layer.name for layer in alone]
    assert {layer.name for layer in whole} == in_memory.keys()
    for one, other in zip(whole, alone, strict=True):
        known = in_memory[one.name]
        for array in ("running_mean", "running_var", "gamma", "beta"):
            np.testing.assert_array_equal(getattr(one, array), getattr(known, array))
            np.testing.assert_array_equal(getattr(other, array), getattr(known, array))
        for fact in ("eps", "momentum", "kind", "tracks", "num_batches_tracked", "dtype"):
            assert getattr(one, fact) == getattr(known, fact)


def test_a_checkpoint_without_batch_norm_is_fine_and_says_so(tmp_path: Path) -> None:
    found = inspected(nn.Linear(2, 2).state_dict(), tmp_path)
    assert (found.layers, found.findings) == ((), ())
    assert "no BatchNorm layers" in found.notes[0]


def test_a_sound_model_has_nothing_above_info(tmp_path: Path) -> None:
    found = inspected(model().state_dict(), tmp_path)
    assert {finding.severity for finding in found.findings} <= {"info"}
    assert found.layer("1").num_batches_tracked == 100


def test_the_place_of_the_weights_can_be_given(tmp_path: Path) -> None:
    first, second = model().state_dict(), nn.BatchNorm1d(2).state_dict()
    found = inspected({"model": first, "ema": second}, tmp_path, key="ema")
    assert ([layer.name for layer in found.layers], found.file.others) == ([""], ("model",))
    with pytest.raises(InputError, match="no state dict at 'nothing'"):
        inspected({"model": first}, tmp_path, key="nothing")


def test_the_json_document_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = inspected(model(), tmp_path)
    assert Inspection.from_json(found.to_json()) == found
    for text in ("[]", "{", '{"schema": 2}', '{"schema": 1, "file": {}}'):
        with pytest.raises(InputError):
            Inspection.from_json(text)


def test_the_frame_has_a_row_a_layer(tmp_path: Path) -> None:
    found = inspected(model().state_dict(), tmp_path)
    frame = found.to_frame()
    assert frame["name"].tolist() == ["1", "4"]
    assert frame["running_var_median"].tolist() == [x.running_var.median for x in found.layers]
    assert frame["dead"].tolist() == [0, 0]
