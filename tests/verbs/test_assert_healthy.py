"""`bnaudit.testing.assert_healthy`: what a project's own tests see."""

from __future__ import annotations

import copy
import inspect
import os
import random
import sys
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import BN_NAMES, classifier, images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.config import GateSettings
from bnaudit.errors import InputError, ModelError
from bnaudit.findings.policy import Policy
from bnaudit.results import Audit
from bnaudit.testing import assert_healthy

X, Y = images(240)
DATA = TensorDataset(X, Y)

STATISTICS = {"select": ["BN1"]}
"""The estimates alone: the classifier is untrained, and its outputs mean nothing."""


@cache
def exact() -> nn.Module:
    """Statistics that are right on the data, and counts as after training."""
    model = classifier()
    bnaudit.recalibrate(model, DATA, force=True)
    for name in BN_NAMES:
        count = model.get_submodule(name).num_batches_tracked
        assert isinstance(count, Tensor)
        count.fill_(1000)
    return model.eval()


def sound() -> nn.Module:
    return copy.deepcopy(exact())


def wrong(name: str = "8", factor: float = 3.0) -> nn.Module:
    model = sound()
    running_var = model.get_submodule(name).running_var
    assert isinstance(running_var, Tensor)
    running_var *= factor
    return model


def message(model: nn.Module, data: Any = DATA, **given: Any) -> str:
    with pytest.raises(AssertionError) as failed:
        assert_healthy(model, data, **given)
    return str(failed.value)


def test_a_sound_model_passes_and_the_verdict_is_returned() -> None:
    verdict = assert_healthy(sound(), DATA, **STATISTICS)
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert verdict.subject.samples == 240


def test_wrong_estimates_fail_with_code_layer_figure_and_remedy() -> None:
    said = message(wrong(), **STATISTICS)
    assert said.startswith("FAIL  ")
    assert "BN101 estimation-shift (warning)" in said
    assert f"in layer {BN_NAMES[-1]}, the largest" in " ".join(said.split())
    audit = bnaudit.measure(wrong(), DATA, attribute="none")
    figure = audit.layer(BN_NAMES[-1]).output_shift
    assert figure is not None
    assert f"output shift {figure.value:.3g} (95% interval {figure.low:.3g}" in " ".join(
        said.split()
    )
    assert "Recalibrate" in said
    assert "bnaudit.recalibrate(model, calibration_data" in said


def test_the_message_is_plain_text_of_lines_that_fit() -> None:
    said = message(wrong(), **STATISTICS)
    assert "\x1b" not in said
    lines = said.splitlines()
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line != line.rstrip()]


@pytest.mark.parametrize("data", [DataLoader(DATA, 32), list(DataLoader(DATA, 50)), DATA])
def test_a_dataset_a_loader_and_a_list_of_batches_will_do(data: Any) -> None:
    assert assert_healthy(sound(), data, **STATISTICS).outcome == "pass"
    assert "BN101" in message(wrong(), data, **STATISTICS)


def test_a_limit_is_a_keyword() -> None:
    model = wrong()
    assert_healthy(model, DATA, fail_on="nothing")
    said = message(model, fail_on="nothing", max_layer_esm=0.1)
    assert "max_layer_esm" in said
    assert "exceeds 0.1" in " ".join(said.split())
    assert_healthy(model, DATA, fail_on="nothing", max_layer_esm=2)


def test_every_setting_of_the_gate_that_is_not_the_commands_is_a_keyword() -> None:
    values: dict[str, Any] = {
        "fail_on": "nothing",
        "inconclusive": "pass",
        "max_layer_esm": 9.0,
        "max_total_esm": 9.0,
        "max_disagreement": 1.0,
        "max_cross_entropy": 1e9,
        "min_accuracy": 0.0,
        "select": ["BN1"],
        "ignore": "BN107",
        "per_layer_ignores": {"head*": ["all"]},
        "tolerance": {"layer_esm": 0.2},
        "baseline": None,
    }
    assert values.keys() | {"report", "base_checkpoint"} == GateSettings.model_fields.keys()
    verdict = assert_healthy(sound(), DATA, **values)
    assert {check.name for check in verdict.checks if check.kind == "limit"} == {
        name for name in values if name.startswith(("max_", "min_"))
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_layer_ems": 0.1}, "did you mean 'max_layer_esm'"),
        ({"tolerance": {"layer_ems": 0.1}}, "did you mean 'tolerance.layer_esm'"),
        ({"max_layer_esm": "0.1"}, "max_layer_esm: give a number, got '0.1'"),
        ({"min_accuracy": 90}, "min_accuracy: give a number less than or equal to 1"),
        ({"fail_on": "critical"}, "fail_on: give 'error'"),
        ({"ignore": ["BN999"]}, "gate.ignore: BN999"),
        ({"select": ["estimation-shfit"]}, "did you mean estimation-shift"),
        ({"report": ["json=x.json"]}, "report is for the command"),
        ({"base_checkpoint": "x.pt"}, "base_checkpoint is for the command"),
        ({"baseline": "nope.json"}, "--write-baseline"),
        ({"samples": 0}, "samples is 0"),
        ({"policy": Policy(ignore=("BN999",))}, "BN999"),
    ],
    ids=str,
)
def test_what_is_asked_for_wrongly_is_an_input_error_before_anything_is_measured(
    given: dict[str, Any], said: str
) -> None:
    model = sound()
    model.register_forward_hook(_never)
    with pytest.raises(InputError) as refused:
        assert_healthy(model, DATA, **given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def _never(*_: object) -> None:
    raise AssertionError("measured")


def test_data_that_are_empty_or_do_not_fit_are_no_assertion() -> None:
    with pytest.raises(InputError, match="empty"):
        assert_healthy(sound(), TensorDataset(X[:0], Y[:0]))
    with pytest.raises(ModelError):
        assert_healthy(sound(), TensorDataset(X[:, :1], Y))


def test_too_few_data_fail_unless_told_otherwise() -> None:
    few = TensorDataset(X[:12], Y[:12])
    said = message(sound(), few, **STATISTICS)
    assert said.startswith("INCONCLUSIVE")
    assert "12 samples are too few" in said
    verdict = assert_healthy(sound(), few, inconclusive="pass", **STATISTICS)
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 0)


def test_activations_that_are_not_finite_fail_and_name_the_layer() -> None:
    model = sound()
    with torch.no_grad():
        weight = model.get_submodule("3").weight
        assert isinstance(weight, Tensor)
        weight.fill_(3e38)
    said = message(model)
    assert "finite" in said
    assert "layer 4 receives NaN, infinite or too large values" in said


def test_statistics_that_are_nan_fail_with_their_finding() -> None:
    model = sound()
    running_mean = model.get_submodule("1").running_mean
    assert isinstance(running_mean, Tensor)
    running_mean.fill_(float("nan"))
    said = message(model)
    assert "BN001" in said
    assert "unused setting" not in message(model, per_layer_ignores={"8": ["BN101"]})


def test_a_model_without_batchnorm_passes() -> None:
    verdict = assert_healthy(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), DATA)
    assert "no BatchNorm layer" in verdict.sentence


def test_with_a_baseline_only_what_got_worse_fails(tmp_path: Path) -> None:
    baseline = bnaudit.measure(wrong(), DATA, attribute="none")
    (tmp_path / "main.json").write_text(baseline.to_json())
    for given in (baseline, tmp_path / "main.json", str(tmp_path / "main.json")):
        assert assert_healthy(wrong(), DATA, baseline=given, **STATISTICS).outcome == "pass"
        said = message(wrong(factor=9.0), baseline=given, **STATISTICS)
        assert "FAIL layer_esm" in said
        assert "got worse than in the baseline" in " ".join(said.split())


def test_a_baseline_of_another_network_is_an_input_error() -> None:
    other = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 7, 3), nn.Flatten())
    baseline = bnaudit.measure(other, TensorDataset(X), attribute="none")
    with pytest.raises(InputError, match="another network"):
        assert_healthy(sound(), DATA, baseline=baseline)


def test_a_policy_sets_the_thresholds() -> None:
    policy = Policy(thresholds={"BN101": {"shift": 5.0}})
    assert assert_healthy(wrong(), DATA, policy=policy, **STATISTICS).outcome == "pass"


def test_the_options_are_those_of_measure() -> None:
    ours = inspect.signature(assert_healthy).parameters
    theirs = inspect.signature(bnaudit.measure).parameters
    shared = ours.keys() & theirs.keys()
    assert shared >= {"model", "data", "forward", "task", "batch_size", "samples", "seed", "device"}
    for name in shared - {"attribute"}:
        assert ours[name].default == theirs[name].default


def test_samples_seed_and_forward_are_heeded() -> None:
    calls: list[int] = []

    def forward(model: nn.Module, batch: Any) -> Any:
        calls.append(len(batch[0]))
        return model(batch[0])

    given = {"samples": 200, "seed": 7, "batch_size": 50, "forward": forward}
    verdict = assert_healthy(sound(), DATA, fail_on="nothing", **given)
    assert (verdict.subject.samples, verdict.subject.seed) == (200, 7)
    assert set(calls) >= {50}


def generators() -> tuple[Any, ...]:
    return (
        random.getstate(),
        str(np.random.get_state()),
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("passes", [True, False], ids=["passing", "failing"])
@pytest.mark.parametrize("training", [True, False], ids=["in train mode", "in eval mode"])
def test_the_model_and_the_generators_are_left_as_they_were(passes: bool, training: bool) -> None:
    model = sound() if passes else wrong()
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng, grad = generators(), torch.is_grad_enabled()
    if passes:
        assert_healthy(model, DATA, **STATISTICS)
    else:
        message(model, **STATISTICS)
    assert all(module.training == training for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert generators() == rng
    assert torch.is_grad_enabled() == grad
    assert not any(module._forward_hooks for module in model.modules())


TEST_FILE = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bnaudit.testing


def test_the_statistics_fit_the_data():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    loader = DataLoader(TensorDataset(5 + torch.randn(200, 4)), batch_size=20)
    bnaudit.testing.assert_healthy(model, loader, max_layer_esm=0.2)
"""


def test_the_output_of_pytest_shows_the_findings_and_not_our_code(tmp_path: Path) -> None:
    (tmp_path / "test_model.py").write_text(TEST_FILE)
    process = get_context("fork").Process(target=run_pytest, args=(tmp_path,))  # has torch
    process.start()
    process.join()
    assert process.exitcode == 1
    out = (tmp_path / "out").read_text()
    for said in ("BN004 never-updated", "max_layer_esm", "Recalibrate", "1 failed"):
        assert said in out
    assert "in assert_healthy" not in out
    assert "raise AssertionError(_text" not in out
    assert "bnaudit.testing.assert_healthy(model, loader" in out  # where it was called
    assert len(out.splitlines()) < 60


def run_pytest(folder: Path) -> None:
    """In a process of its own, whose output goes into the file `out`."""
    for name in ("CI", "BUILD_NUMBER"):  # with these, pytest repeats the message in its summary
        os.environ.pop(name, None)
    os.chdir(folder)
    with Path("out").open("w") as out:
        os.dup2(out.fileno(), 1)
        sys.stdout = sys.__stdout__
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_model.py"]))


def test_an_audit_that_was_measured_before_is_no_model() -> None:
    audit = bnaudit.measure(sound(), DATA, attribute="none")
    assert isinstance(audit, Audit)
    with pytest.raises((ModelError, InputError, TypeError, AttributeError)):
        assert_healthy(audit, DATA)  # type: ignore[arg-type]
