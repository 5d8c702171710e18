"""Statistics that are partly the parent's: BN052."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lineages import State, child_of, concluded, copied, findings, lineage, trained
from stored_states import LAYERS, Net, batches, train
from torch import Tensor

from bnaudit.findings.policy import Policy

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def interpolated(first: State, second: State, share: float) -> dict[str, Tensor]:
    return {
        name: torch.lerp(first[name], second[name], share)
        if first[name].is_floating_point()
        else first[name]
        for name in first
    }


def trained_otherwise(net: Net, steps: int = 60) -> Net:
    return train(child_of(net), steps, scale=1.3)  # type: ignore[return-value]


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_an_interpolation_of_two_trainings_is_told_with_its_shares(
    tmp_path: Path, share: float
) -> None:
    first = trained()
    second = trained_otherwise(first)
    child = interpolated(copied(first), copied(second), share)
    found = findings(tmp_path, child, first, second)
    assert list(found) == ["BN052"]
    assert found["BN052"].layers == LAYERS
    assert found["BN052"].evidence["with"] == "parents"
    for shares in (*found["BN052"].evidence["shares"].values(), found["BN052"].evidence["weights"]):
        assert shares == pytest.approx([1 - share, share], abs=1e-4)
    assert "vary less" in found["BN052"].sentence


def test_merged_weights_with_the_statistics_of_one_parent_are_stale(tmp_path: Path) -> None:
    first = trained()
    second = trained_otherwise(first)
    child = interpolated(copied(first), copied(second), 0.5)
    child |= {name: value for name, value in copied(second).items() if "running" in name}
    found = findings(tmp_path, child, first, second)
    assert list(found) == ["BN050"]
    assert found["BN050"].evidence["cause"] == "merged"
    assert "parent1.pt" in found["BN050"].sentence  # the one of which they are


def test_three_parents_each_get_their_share(tmp_path: Path) -> None:
    first = trained()
    parents = [copied(net) for net in (first, trained_otherwise(first), train(child_of(first), 30))]
    shares = (0.2, 0.5, 0.3)
    child = {
        name: sum(share * parent[name] for share, parent in zip(shares, parents, strict=True))
        if parents[0][name].is_floating_point()
        else parents[0][name]
        for name in parents[0]
    }
    found = lineage(tmp_path, child, *parents)
    assert found.network.shares == pytest.approx(shares, abs=1e-4)
    for layer in found.layers:
        assert layer.mixture is not None
        assert layer.mixture.shares == pytest.approx(shares, abs=1e-3)


def test_a_training_of_its_own_is_no_mixture_of_others(tmp_path: Path) -> None:
    first = trained()
    others = trained_otherwise(first), train(child_of(first), 30)
    assert not findings(tmp_path, trained_otherwise(first, 90), *others)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("forwards", [1, 3])
def test_forwards_on_zeros_are_told_and_counted(
    tmp_path: Path, forwards: int, counted: bool
) -> None:
    parent = trained()
    child = child_of(parent).train()
    with torch.no_grad():
        for _ in range(forwards):
            child(torch.zeros(4, 3, 8, 8))
    states = [copied(net) for net in (child, parent)]
    if not counted:
        states = [{k: v for k, v in s.items() if "num_batches" not in k} for s in states]
    found = findings(tmp_path, *states)
    assert list(found) == ["BN052"]  # and not drifted as well
    assert found["BN052"].layers == LAYERS
    assert found["BN052"].evidence["with"] == "zero-batches"
    assert found["BN052"].evidence["forwards"] == forwards
    power = "0.9" if forwards == 1 else f"0.9^{forwards}"
    assert f"{power} times" in found["BN052"].sentence
    assert "eval()" in found["BN052"].remedy


@pytest.mark.parametrize(("limit", "drifted"), [(1e-5, True), (1e-2, False)])
def test_what_counts_as_the_same_weights_is_a_setting(
    tmp_path: Path, limit: float, drifted: bool
) -> None:
    parent = trained(bias=True)
    child = child_of(parent).train()
    with torch.no_grad():
        for _ in range(2):
            child(torch.zeros(4, 3, 8, 8))
    state = copied(child)
    state["a.conv.weight"] *= 1.001
    # The last layer received more than zeros: it moved with the others, and is no mixture.
    state["c.bn.running_var"] *= torch.linspace(0.5, 2, 8)
    found = concluded(lineage(tmp_path, state, parent), Policy({"BN051": {"weights": limit}}))
    assert found["BN052"].layers == (("a.bn", "b.bn") if drifted else LAYERS)
    assert "BN051" not in found


def test_a_pruned_channel_hides_no_mixture(tmp_path: Path) -> None:
    parent = trained()
    with torch.no_grad():
        parent.a.bn.weight[5] = 0.0
        parent.a.bn.running_var[5] = 1e-6
        child = child_of(parent).train()
        child(torch.zeros(4, 3, 8, 8))
        child.a.bn.running_mean[5] += 1e-3
    states = [copied(net) for net in (child, parent)]
    # Where batches are counted, variances alone tell forwards on zeros.
    uncounted = [{k: v for k, v in s.items() if "num_batches" not in k} for s in states]
    found = findings(tmp_path, *uncounted)
    assert list(found) == ["BN052"]
    assert found["BN052"].evidence["shares"] == {"a.bn": pytest.approx([0.9, 0.1], abs=1e-5)}


def test_zeros_behind_a_bias_are_told_where_the_counters_bear_it_out(tmp_path: Path) -> None:
    parent = trained(bias=True)
    child = child_of(parent).train()
    with torch.no_grad():
        for _ in range(2):
            child(torch.zeros(4, 3, 8, 8))
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN052"]
    assert found["BN052"].evidence["forwards"] == 2


def test_inputs_on_another_scale_are_not_taken_for_zeros(tmp_path: Path) -> None:
    parent = trained()
    state = copied(parent)
    state["a.bn.running_var"] *= 0.77  # no power of 0.9
    state["a.bn.running_mean"] *= 0.77**0.5
    assert list(findings(tmp_path, state, parent)) == ["BN051"]


def test_initial_values_that_still_weigh_are_told(tmp_path: Path) -> None:
    parent = trained()
    state = copied(parent)
    for name in LAYERS:
        state[f"{name}.running_mean"] *= 0.7
        state[f"{name}.running_var"].mul_(0.7).add_(0.3)
    found = findings(tmp_path, state, parent)
    assert list(found) == ["BN052"]
    assert found["BN052"].evidence["with"] == "initial"
    assert "30% of the initial values" in found["BN052"].sentence


def test_a_lagging_average_is_told_beside_a_healthy_one() -> None:
    from lineages import lineage_of_files

    found = concluded(lineage_of_files(SAMPLES / "lagging_ema.pt", SAMPLES / "healthy.pt"))
    assert list(found) == ["BN052"]
    # 0.9995^420 = .81 of the initial values is left, see its README.
    for _, share in found["BN052"].evidence["shares"].values():
        assert share == pytest.approx(0.81, abs=0.03)


def test_few_batches_after_a_large_change_leave_the_parent_in_the_average(tmp_path: Path) -> None:
    parent = trained()
    child = child_of(parent)
    for block in (child.a, child.b, child.c):
        block.conv.weight.data += 0.05 * torch.randn_like(block.conv.weight)
    child.train()
    with torch.no_grad():
        for x, _ in batches(10):
            child(x)
    found = findings(tmp_path, child, parent)
    assert list(found) == ["BN052"]
    assert found["BN052"].evidence["with"] == "few-batches"
    assert found["BN052"].evidence["parent_weight"]["a.bn"] == pytest.approx(0.9**10)
    with torch.no_grad():
        for x, _ in batches(30):
            child(x)
    assert not findings(tmp_path, child, parent)


def test_thresholds_are_settings(tmp_path: Path) -> None:
    parent = trained()
    child = trained_otherwise(parent, 60)
    found = lineage(tmp_path, child, parent)
    assert not concluded(found)
    loose = Policy({"BN052": {"parent_weight": 1e-9, "change": 0.0}})
    assert list(concluded(found, loose)) == ["BN052"]
