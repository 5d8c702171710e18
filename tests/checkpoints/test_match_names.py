"""Which name in a checkpoint is which in a model."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bnaudit.checkpoints.names import Match, describe_mismatch, match_names


def network() -> nn.Module:
    blocks = [
        nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()) for _ in "abc"
    ]
    return nn.Sequential(nn.Conv2d(3, 4, 3), *blocks, nn.Linear(4, 10))


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


STATE = network().state_dict()
COMPONENTS = ["module", "model", "_orig_mod", "net", "backbone", "0", "1"]
PREFIX = st.lists(st.sampled_from(COMPONENTS), max_size=3).map(
    lambda p: "".join(f"{c}." for c in p)
)


def assert_all_match(match: Match) -> None:
    assert match.complete, describe_mismatch(match)
    assert list(match.tensors) == list(STATE)
    assert all(match.tensors[name] is STATE[name] for name in STATE)


@given(PREFIX)
def test_any_prefix_is_stripped(prefix: str) -> None:
    match = match_names(prefixed(prefix, STATE), STATE)
    assert_all_match(match)
    assert (match.stripped, match.added) == (prefix, "")


@given(PREFIX)
def test_any_prefix_is_added(prefix: str) -> None:
    match = match_names(STATE, prefixed(prefix, STATE))
    assert match.complete
    assert list(match.tensors) == list(prefixed(prefix, STATE))
    assert (match.stripped, match.added) == ("", prefix)


@given(PREFIX, PREFIX)
def test_any_prefix_is_exchanged_for_any_other(theirs: str, ours: str) -> None:
    match = match_names(prefixed(theirs, STATE), prefixed(ours, STATE))
    assert match.complete
    assert len(match.tensors) == len(STATE)
    if theirs == ours:
        assert (match.stripped, match.added) == ("", "")


@given(st.sets(st.sampled_from(sorted(STATE)), max_size=len(STATE)))
def test_a_prefix_is_left_alone_where_the_names_match_with_it(dropped: set[str]) -> None:
    wanted = prefixed("module.", STATE)
    found = {name: value for name, value in wanted.items() if name[7:] not in dropped}
    match = match_names(found, wanted)
    assert (match.stripped, match.added) == ("", "")
    assert list(match.tensors) == list(found)
    assert match.unexpected == ()


def test_wrappers_are_looked_through_in_the_middle() -> None:
    compiled = {name.replace("1.0.", "1._orig_mod.0."): value for name, value in STATE.items()}
    match = match_names(prefixed("module.", compiled), STATE)
    assert_all_match(match)
    assert match.stripped == "module.*_orig_mod."
    assert match_names(STATE, compiled).complete
    assert match_names(compiled, compiled).stripped == ""


def test_an_absent_counter_does_no_harm() -> None:
    found = {name: v for name, v in STATE.items() if not name.endswith("num_batches_tracked")}
    match = match_names(found, STATE)
    assert match.complete
    assert match.without_counter == ("1.1", "2.1", "3.1")


def test_what_swa_adds_does_no_harm() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(network()).state_dict()
    match = match_names(averaged, STATE)
    assert match.complete
    assert match.stripped == "module."
    assert match.ignored == ("n_averaged",)
    assert match_names(STATE, averaged).complete


def test_a_counter_that_a_frozen_layer_lacks_does_no_harm() -> None:
    frozen = {name: v for name, v in STATE.items() if not name.endswith("num_batches_tracked")}
    match = match_names(STATE, frozen)
    assert match.complete
    assert len(match.ignored) == 3


def test_entries_that_are_no_tensors_are_passed_over() -> None:
    match = match_names(
        {**STATE, "_extra_state": {"a": 1}, "step": 3}, {**STATE, "_extra_state": 1}
    )
    assert match.complete
    assert match.ignored == ("_extra_state", "step")


def test_a_wrong_shape_is_told_with_both_shapes() -> None:
    match = match_names(prefixed("module.", {**STATE, "4.weight": torch.ones(5, 4)}), STATE)
    assert [str(m) for m in match.mismatched] == [
        "4.weight (5, 4) in the file, (10, 4) in the model"
    ]
    assert "4.weight" not in match.tensors
    assert match.missing == match.unexpected == ()


def test_lazy_parameters_match_any_shape() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    eager = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    match = match_names(prefixed("module.", eager.state_dict()), lazy.state_dict())
    assert match.complete
    assert len(match.tensors) == 7


def test_a_tied_name_takes_the_tensor_of_its_twin() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    match = match_names({"0.weight": torch.eye(3)}, model.state_dict())
    assert match.complete
    assert match.tensors["1.weight"] is match.tensors["0.weight"]


def test_plain_weights_are_taken_where_averaged_ones_match_as_well() -> None:
    both = {**prefixed("ema_model.", STATE), **prefixed("model.", STATE)}
    match = match_names(both, STATE)
    assert match.stripped == "model."
    assert len(match.unexpected) == len(STATE)


def test_no_prefix_is_changed_for_a_few_accidental_matches() -> None:
    other = {f"block{i}.conv.weight": torch.ones(i + 1, 7) for i in range(40)}
    found = {**other, "head.4.weight": STATE["4.weight"]}
    match = match_names(found, STATE)
    assert (match.stripped, match.added) == ("", "")
    assert not match.tensors


def test_a_name_without_the_prefix_fills_a_gap_and_never_displaces_one_with_it() -> None:
    last = STATE["4.weight"] + 1
    rest = {name: value for name, value in STATE.items() if name != "4.weight"}
    assert match_names({**prefixed("module.", rest), "4.weight": last}, STATE).complete
    match = match_names({"4.weight": last, **prefixed("module.", STATE)}, STATE)
    assert match.tensors["4.weight"] is STATE["4.weight"]
    assert match.unexpected == ("4.weight",)


def test_a_mismatch_is_told_in_one_line_with_counts_neighbours_and_remedy() -> None:
    found = {name.replace("1.1.running", "1.1.runing"): v for name, v in STATE.items()}
    found = {**found, "fc\n.bias": torch.ones(3), "0.weight": torch.ones(1)}
    message = describe_mismatch(match_names(found, STATE))
    assert "\n" not in message
    assert f"{len(STATE) - 3} of {len(STATE)} tensors match" in message
    assert "2 missing in the file: 1.1.running_mean (there is 1.1.runing_mean)" in message
    assert "3 unexpected in the file" in message
    assert "1 of another shape: 0.weight (1,) in the file" in message
    for option in ("--model", "--model-arg", "--checkpoint-key", "--allow-mismatch"):
        assert option in message
    many = {f"x{i}": torch.ones(1) for i in range(5000)}
    nothing_fits = describe_mismatch(match_names(many, STATE))
    assert "and 4995 more" in nothing_fits
    assert "--allow-mismatch" not in nothing_fits


def test_empty_sides_do_not_crash() -> None:
    assert match_names({}, STATE).missing
    assert match_names(STATE, {}).unexpected == tuple(STATE)
    assert match_names({}, {}).complete
