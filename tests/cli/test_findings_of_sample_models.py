"""Each sample model is diagnosed with the right codes, and only with related ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from workplace import SAMPLES, Run

SHIFT = {"BN101", "BN102", "BN103", "BN106", "BN107"}
"""Of a shift: it is there, it grows, it is inherited, a few channels have it, one layer is open."""

BATCHES_DO_BETTER = {"BN201", "BN203"}
TRAINING = ("--train-data", f"npz:{SAMPLES}/digits.npz", "--train-data-arg", "split=train")

CASES: dict[str, tuple[tuple[str, ...], set[str], set[str]]] = {
    # what is measured: the options, the codes that have to come, the others that may
    "healthy": ((), set(), set()),
    "healthy on its training data": (("--data-arg", "split=train"), set(), set()),
    "healthy with its training data": (TRAINING, set(), set()),
    "small_batch": ((), {"BN101", *BATCHES_DO_BETTER}, SHIFT),
    "small_batch at 2": (("--train-batch-size", "2"), {"BN101", "BN202"}, SHIFT),
    "lagging_ema": ((), {"BN101", "BN109", *BATCHES_DO_BETTER}, SHIFT),
    "averaged": ((), {"BN101", "BN102", "BN103", *BATCHES_DO_BETTER}, SHIFT),
    "averaged with its training data": (TRAINING, {"BN101", "BN108", *BATCHES_DO_BETTER}, SHIFT),
    "healthy, brighter": (
        ("--transform", f"{SAMPLES}/digits.py:brighter"),
        {"BN101", "BN103", *BATCHES_DO_BETTER},
        SHIFT,
    ),
    "healthy, low contrast": (
        ("--transform", f"{SAMPLES}/digits.py:low_contrast"),
        {"BN101", "BN103", *BATCHES_DO_BETTER},
        SHIFT,
    ),
}


def findings(once: Run, name: str, *more: str) -> list[dict[str, Any]]:
    config = SAMPLES / "bnaudit.toml"
    ran = once("measure", SAMPLES / f"{name}.pt", "--config", config, "--json", *more)
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["findings"]
    return found


SLOW = (
    *("healthy on its training data", "healthy with its training data", "healthy, low contrast"),
    *("small_batch at 2", "averaged"),
)
"""What differs from another case in the data alone, or in what the tests of its rule show."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES]
)
def test_a_sample_model_has_the_right_codes_and_only_related_ones(once: Run, case: str) -> None:
    options, wanted, allowed = CASES[case]
    found = findings(once, case.replace(",", " ").split()[0], *options)
    codes = {finding["code"] for finding in found}
    assert wanted <= codes
    assert codes <= wanted | allowed
    if not wanted:
        assert [f for f in found if f["severity"] != "info"] == []


def test_the_layer_that_causes_a_shift_of_the_data_is_the_first(once: Run) -> None:
    brighter = ("--transform", f"{SAMPLES}/digits.py:brighter")
    (found,) = (f for f in findings(once, "healthy", *brighter) if f["code"] == "BN103")
    assert found["evidence"]["causes"] == ["bn"]


def test_the_data_are_at_fault_where_the_training_data_fit(bnaudit: Run, folder: Any) -> None:
    with np.load(SAMPLES / "digits.npz") as file:
        x = np.clip(file["x_test"].astype(int) + 80, 0, 255).astype(np.uint8)
        np.savez(folder / "production.npz", x_test=x, y_test=file["y_test"])
    production = f"npz:{folder / 'production.npz'}"
    found = {
        finding["code"]: finding
        for finding in findings(bnaudit, "healthy", "--data", production, *TRAINING)
    }
    assert "the estimates fit those" in found["BN302"]["sentence"]
    assert "BN108" not in found


def test_the_command_of_a_finding_can_be_run_as_it_is(bnaudit: Run, once: Run, folder: Any) -> None:
    import shlex

    (found,) = (f for f in findings(once, "lagging_ema") if f["code"] == "BN101")
    program, *words = shlex.split(found["command"])
    assert program == "bnaudit"
    ran = bnaudit(*words, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["decision"]["level"] == "gain"
