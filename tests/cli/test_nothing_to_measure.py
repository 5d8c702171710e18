"""What is told first where a command does not name enough."""

from __future__ import annotations

from pathlib import Path

import pytest
from workplace import Run

VERBS = ["measure", "gate"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_that_is_not_there_is_told_before_the_data_that_are_missing(
    folder: Path, bnaudit: Run, verb: str
) -> None:
    ran = bnaudit(verb, "godd.pt")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: godd.pt: no such file; did you mean good.pt?\n"


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_without_data_is_told_what_data_are(
    folder: Path, bnaudit: Run, verb: str
) -> None:
    ran = bnaudit(verb, "good.pt")
    assert ran.code == 2
    assert ran.err.startswith("error: no data: say what to measure on with --data imagefolder:DIR")


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_names_nothing_is_told_of_init(
    folder: Path, bnaudit: Run, verb: str
) -> None:
    ran = bnaudit(verb)
    assert ran.code == 2
    assert "no checkpoint, no model and no data are named" in ran.err
    assert "bnaudit init" in ran.err


def test_a_model_without_a_checkpoint_is_still_measured(folder: Path, bnaudit: Run) -> None:
    measure = ("measure", "--no-plots", "--model", "net.py:model")
    assert bnaudit(*measure, "--data", "npz:data.npz").code == 0
    assert "no data" in bnaudit(*measure).err
