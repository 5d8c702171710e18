"""What a file stores is judged alike by inspect, measure and gate, whatever model it goes into."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from workplace import Run, network

State = dict[str, Tensor]
MEASURED = ("--model", "net.py:model", "--data", "npz:data.npz", "--attribute", "none", "--json")


def sound() -> State:
    state = network().state_dict()
    state["1.running_mean"] = torch.tensor([0.1, -0.2, 0.3, 0.2])
    state["1.running_var"] = torch.tensor([0.8, 1.2, 1.1, 0.9])
    state["1.num_batches_tracked"] = torch.tensor(5000)
    return state


def halved(dtype: torch.dtype) -> Callable[[State], State]:
    return lambda state: {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state.items()
    }


def with_average(state: State) -> State:
    return {"n_averaged": torch.tensor(4), **{f"module.{k}": v for k, v in state.items()}}


def trained_on(state: State) -> dict[str, Any]:
    steps = {"state": {0: {"step": torch.tensor(1000.0)}}, "param_groups": [{"params": [0]}]}
    return {"state_dict": state, "optimizer": steps}


def counting(count: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, "1.num_batches_tracked": count}


def codes(bnaudit: Run, *command: str) -> dict[str, str]:
    """The findings by their codes, with what they say."""
    ran = bnaudit(*command)
    document = json.loads(ran.out)
    return {each["code"]: each["sentence"] for each in document["findings"]}


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("BN017", halved(torch.float16)),
        ("BN017", halved(torch.bfloat16)),
        ("BN010", counting(torch.tensor(2500.5))),
        ("BN021", with_average),
        ("BN011", trained_on),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_inspect_finds_in_a_file_measure_finds_too(
    bnaudit: Run, code: str, change: Callable[[State], Any]
) -> None:
    torch.save(change(sound()), "a.pt")
    inspected = codes(bnaudit, "inspect", "a.pt", "--json")
    assert codes(bnaudit, "measure", "a.pt", *MEASURED)[code] == inspected[code]
    torch.save(sound(), "sound.pt")
    assert code not in codes(bnaudit, "measure", "sound.pt", *MEASURED)


@pytest.mark.usefixtures("folder")
def test_a_count_that_the_file_does_not_have_is_not_taken_for_zero(bnaudit: Run) -> None:
    state = sound()
    del state["1.num_batches_tracked"]
    torch.save(state, "a.pt")
    assert "no count" in codes(bnaudit, "measure", "a.pt", *MEASURED)["BN005"]


@pytest.mark.usefixtures("folder")
def test_lost_statistics_are_still_told_where_they_were_allowed_to_be_missing(bnaudit: Run) -> None:
    state = sound()
    del state["1.running_var"]
    torch.save(state, "a.pt")
    said = codes(bnaudit, "measure", "a.pt", *MEASURED, "--allow-mismatch")["BN006"]
    assert said.startswith("Layer 1 has running_mean and no running_var")
    refused = bnaudit("measure", "a.pt", *MEASURED)
    assert refused.code == 2
    assert "the file has no running_var of 1 BatchNorm layer (1)" in refused.err


@pytest.mark.usefixtures("folder")
def test_the_gate_fails_on_a_file_in_half_precision(bnaudit: Run) -> None:
    torch.save(halved(torch.bfloat16)(sound()), "half.pt")
    said = bnaudit("gate", "half.pt", *MEASURED[:-1], "--samples", "all")
    assert said.code == 1
    assert "BN017" in said.out
