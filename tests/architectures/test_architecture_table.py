"""The script that tries every architecture of a library, on a few small ones; and its page."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import architecture_outcome  # noqa: E402 - a script's modules are found beside it
import architecture_page  # noqa: E402
import architecture_trial  # noqa: E402
import architectures  # noqa: E402

PLAIN, FIXED, WITHOUT = "test_resnet", "test_coatnet", "test_vit"
"""One that takes any size, one that is made for one size, one without BatchNorm."""

OWN = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x)).mean((2, 3))


class Raising(Small):
    def forward(self, x):
        assert x.shape[-1] == 1000, f"wants 1000, got {x.shape[-1]}"
        return super().forward(x)


class NeverFinite(Small):
    def forward(self, x):
        return super().forward(x) / 0


class Remembering(Small):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls


class TwoWays(Small):
    def forward(self, x):
        if float(x[0, 0, 0, 0]) < -1:
            return super().forward(x)
        return self.conv(x).mean((2, 3))
"""


@pytest.fixture(scope="module")
def run() -> architecture_outcome.Run:
    return architecture_outcome.Run("timm", 60, 8, 200, architecture_page.versions("timm"))


@pytest.fixture(scope="module")
def outcomes(run: architecture_outcome.Run) -> list[architecture_outcome.Outcome]:
    return list(architectures.try_all(run, [PLAIN, FIXED, WITHOUT, "no_such_net"], workers=1))


def test_an_architecture_with_batchnorm_is_measured_and_recalibrated(outcomes):
    plain, fixed, without, unknown = outcomes
    assert (plain.name, plain.family, plain.side, plain.built_for) == (
        PLAIN,
        "timm.models.resnet",
        32,
        None,
    )
    assert fixed.side == fixed.built_for == 64
    for one in (plain, fixed):
        assert one.measured
        assert one.exact
        assert one.attributed
        assert one.reached == one.bn_layers > 5
        assert one.residual < 1e-6
    assert without.bn_layers == 0
    assert not without.ran
    assert not without.failures
    assert [failure.stage for failure in unknown.failures] == ["look"]
    assert "timm has no model called no_such_net" in unknown.failures[0].reason


def test_an_architecture_that_takes_too_long_is_told_and_the_next_one_tried(run):
    short = replace(run, seconds=1)
    slow, after = architectures.try_all(short, ["tf_efficientnet_b6", WITHOUT], workers=1)
    assert [failure.reason for failure in slow.failures] == ["took longer than 1 s"]
    assert slow.bn_layers > 100
    assert not slow.exact
    assert not after.failures


def test_what_goes_wrong_is_told_by_its_stage(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    failures = {}
    for name in ("Small", "Raising", "NeverFinite", "Remembering", "TwoWays"):
        outcome = architecture_trial.try_architecture(f"{tmp_path / 'own.py'}:{name}")
        failures[name] = {failure.stage: failure.reason for failure in outcome.failures}
    assert failures["Small"] == {}
    assert failures["Raising"] == {"plain": "AssertionError: wants N, got N"}
    assert failures["NeverFinite"] == {"plain": "the outputs of the plain forward are not finite"}
    assert failures["Remembering"]["measure"] == "the model gives other outputs after measure"
    assert set(failures["TwoWays"]) == {"exact"}


def test_a_run_goes_on_with_what_was_found_and_what_limits_kept_from_being_found(
    tmp_path, run, outcomes
):
    large = architecture_trial.try_architecture("timm:resnet18", parameters=1e6)
    assert large.limited
    path = tmp_path / "cache.jsonl"
    cache = architecture_outcome.Cache(path, run)
    cache.begin()
    for one in (*outcomes, large):
        cache.add(one)
    assert cache.go_on() == [*outcomes, large]
    raised = architecture_outcome.Cache(path, replace(run, millions=300))
    assert raised.go_on() == outcomes
    with pytest.raises(SystemExit, match="--continue"):
        architecture_outcome.Cache(
            tmp_path / "cache.jsonl", replace(run, versions="others")
        ).go_on()


def test_the_counts_of_a_page_are_those_of_its_rows(run, outcomes):
    large = architecture_trial.try_architecture("timm:resnet18", parameters=1e6)
    text = architecture_page.page(run, [*outcomes, large], "python …")
    _counts_agree(text)
    assert _totals(text) == [5, 3, 1, 2, 2, 2, 2]
    assert "`no_such_net`: cannot be built: InputError: " in text


def test_the_committed_page_agrees_with_itself():
    text = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    _counts_agree(text)
    models, with_batchnorm, too_large, ran, _, _, passed = _totals(text)
    assert models > 1000
    assert ran > 0.95 * (with_batchnorm - too_large)
    assert passed >= 0.99 * ran


def _totals(text: str) -> list[int]:
    table = text.split("| | models |")[1].split("\n\n")[0]
    found = re.findall(r"(?m)\| ([\d,]+)(?: \(.*\))? \|$", table)
    return [int(count.replace(",", "")) for count in found]


def _counts_agree(text: str) -> None:
    """The rows of the families sum to the last one, and that is what the first table says."""
    lines = text.split("## Families")[1].split("\n## ")[0].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in lines if "|" in line
    ][2:]
    *families, total = [[int(cell.replace(",", "")) for cell in row[1:7]] for row in rows]
    assert [sum(column) for column in zip(*families, strict=True)] == total
    assert total == _totals(text)[:6]
    largest = [float(row[7]) for row in rows if len(row) > 7 and row[7]]
    assert max(largest[:-1], default=0) == (largest or [0])[-1]
