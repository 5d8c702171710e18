"""How many steps an optimizer made, from the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnaudit.checkpoints.contents import read_contents


def trained(steps: int, kind: Any = torch.optim.Adam, **options: Any) -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = kind(model.parameters(), lr=0.1, **options)
    for _ in range(steps):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def steps_of(content: object, folder: Path, *, zipped: bool = True) -> int | None:
    torch.save(content, folder / "a.pt", _use_new_zipfile_serialization=zipped)
    return read_contents(folder / "a.pt").steps


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
def test_the_optimizer_says_how_many_steps_it_made(tmp_path: Path, kind: Any, zipped: bool) -> None:
    model, optimizer = trained(7, kind)
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}
    assert steps_of(content, tmp_path, zipped=zipped) == 7


def test_integer_counters_of_older_optimizers_count_too(tmp_path: Path) -> None:
    model, optimizer = trained(3)
    state = optimizer.state_dict()
    for of_parameter in state["state"].values():
        of_parameter["step"] = int(of_parameter["step"])
    assert steps_of({"model": model.state_dict(), "optimizer_states": [state]}, tmp_path) == 3


def test_of_several_optimizers_the_longest_counts(tmp_path: Path) -> None:
    model, first = trained(3)
    _, second = trained(5)
    content = {
        "model": model.state_dict(),
        "optimizers": {"g": first.state_dict(), "d": second.state_dict()},
    }
    assert steps_of(content, tmp_path) == 5


def test_sgd_keeps_no_count_and_the_counter_beside_the_weights_is_taken(tmp_path: Path) -> None:
    model, optimizer = trained(4, torch.optim.SGD, momentum=0.9)
    content = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    assert steps_of(content, tmp_path) is None
    assert steps_of({**content, "global_step": 4}, tmp_path) == 4
    assert steps_of({**content, "iteration": torch.tensor(4)}, tmp_path) == 4


def test_what_is_no_count_is_not_taken_for_one(tmp_path: Path) -> None:
    weights = {"state_dict": trained(0)[0].state_dict()}
    for name, value in (("step", 0), ("step", True), ("step", 1.5), ("epoch", 3), ("step", "7")):
        assert steps_of({**weights, name: value}, tmp_path) is None
    assert steps_of(weights["state_dict"], tmp_path) is None
