"""`bnaudit gate` from the command line: exit codes, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gate_runs import CONFIG, HEALTHY, WRONG, gate_command, one_line, verdict
from workplace import Run, contents


def test_a_sound_checkpoint_passes_with_0(bnaudit: Run, work: Path) -> None:
    ran = bnaudit("gate", HEALTHY)
    assert ran.code == 0
    assert ran.out.startswith("PASS")
    assert "Healthy" in ran.out


def test_a_wrong_checkpoint_fails_with_1_and_names_code_layer_figure_and_remedy(
    bnaudit: Run, work: Path
) -> None:
    ran = bnaudit("gate", WRONG)
    assert ran.code == 1
    assert ran.out.startswith("FAIL")
    said = " ".join(ran.out.split())
    assert "BN101 estimation-shift (warning)" in said
    assert "blocks.3.bn2" in said
    assert "0.477 (95% interval 0.45 to 0.502)" in said
    assert "Recalibrate" in said
    assert f"bnaudit recalibrate {WRONG} --model digits.py:model" in said


def test_too_few_data_fail_with_1_and_pass_where_the_settings_say_so(
    bnaudit: Run, work: Path
) -> None:
    few = ("gate", HEALTHY, "--samples", "20", "--max-layer-esm", "0.02")
    ran = bnaudit(*few)
    assert ran.code == 1
    assert ran.out.startswith("INCONCLUSIVE")
    assert "too few" in ran.out
    assert bnaudit(*few, "--inconclusive", "pass").code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "bnaudit init"),
        (("nope.pt",), "nope.pt"),
        (("nope.json",), "nope.json"),
        ((HEALTHY, "--data", "npz:nope.npz"), "nope.npz"),
        ((HEALTHY, "--fail-on", "critical"), "--fail-on: give 'error', 'warning'"),
        ((HEALTHY, "--inconclusive", "maybe"), "--inconclusive"),
        ((HEALTHY, "--max-layer-esm", "-1"), "--max-layer-esm"),
        ((HEALTHY, "--min-accuracy", "90"), "--min-accuracy"),
        ((HEALTHY, "--max-disagreement", "nan"), "--max-disagreement"),
        ((HEALTHY, "--max-cross-entropy", "inf"), "--max-cross-entropy"),
        ((HEALTHY, "--format", "jsn"), "json"),
        ((HEALTHY, "--report", "junit"), "--report junit"),
        ((HEALTHY, "--report", "html=x.html"), "html"),
        ((HEALTHY, "--report", "json=digits.py/x.json"), "digits.py is a file"),
        ((HEALTHY, "--threshold", "BN101.shfit=1"), "shfit"),
        ((HEALTHY, "--ignore", "BN999"), "BN999"),
        ((HEALTHY, "--baseline", "nope.json"), "--write-baseline"),
        ((HEALTHY, "--base-checkpoint", "nope.pt"), "nope.pt"),
        ((HEALTHY, "--baseline", HEALTHY), "zip archive"),
        ((HEALTHY, "--write-baseline", "--baseline", "."), "folder"),
        ((HEALTHY, "--write-baseline", "--base-checkpoint", WRONG), "--base-checkpoint"),
        ((HEALTHY, "--output", "digits.py"), "digits.py is a file"),
        ((HEALTHY, "--seed", "-1"), "--seed"),
        ((HEALTHY, "--samples", "0"), "--samples"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_wrong_with_the_request_is_told_in_a_line_with_2_and_nothing_is_written(
    bnaudit: Run, work: Path, args: tuple[str, ...], said: str
) -> None:
    if not args:
        (work / "bnaudit.toml").unlink()
    before = contents(work)
    output = () if "--output" in args else ("-o", "out")
    line = one_line(bnaudit("gate", *args, "--report", "json=report/gate.json", *output))
    assert said in line
    assert contents(work) == before


def test_an_unknown_code_to_ignore_is_told_before_anything_is_measured(
    bnaudit: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("bnaudit.verbs.gate_checkpoint.measure_prepared", measured)
    for line in ('ignore = ["BN999"]', 'select = "BN999"', 'per_layer_ignores = {"*" = ["BN9"]}'):
        (work / "bnaudit.toml").write_text(f"{CONFIG}[gate]\n{line}\n")
        assert f"gate.{line.split()[0]}" in one_line(bnaudit("gate", HEALTHY))


def test_help_has_examples_of_each_kind(bnaudit: Run) -> None:
    ran = bnaudit("gate", "--help")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    said = " ".join(ran.out.split())
    for example in ("--write-baseline", "--base-checkpoint", "audit.json", "--format github"):
        assert example in said.partition("Examples:")[2]
    for option in gate_command().params:
        assert option.help, option.name


def nan_statistics(work: Path) -> None:
    state = torch.load(work / HEALTHY, weights_only=True)
    state["blocks.1.bn1.running_var"][0] = float("nan")
    torch.save(state, work / "nan.pt")


def test_statistics_that_are_nan_fail_with_their_finding_and_give_no_baseline(
    bnaudit: Run, work: Path
) -> None:
    nan_statistics(work)
    ran = bnaudit("gate", "nan.pt", "--format", "json", "--write-baseline")
    assert ran.code == 1
    found = {check.name: check for check in verdict(ran).checks}
    assert found["finite"].outcome == "fail"
    assert found["finite"].kind == "measurement"
    assert found["BN001"].outcome == "fail"
    assert found["BN001"].layers == ("blocks.1.bn1",)
    assert "not written" in ran.err
    assert not (work / "bnaudit-baseline.json").exists()


def test_activations_that_overflow_fail_and_name_the_layer(bnaudit: Run, work: Path) -> None:
    state = torch.load(work / HEALTHY, weights_only=True)
    state["blocks.1.conv1.weight"].fill_(3e38)
    torch.save(state, work / "inf.pt")
    (work / "bnaudit.toml").write_text(
        f'{CONFIG}[gate]\nignore = ["BN101"]\nper_layer_ignores = {{ "*" = ["all"] }}\n'
    )
    ran = bnaudit("gate", "inf.pt", "--format", "json", "-o", "out")
    assert ran.code == 1
    (check,) = verdict(ran).with_outcome("fail")
    assert check.name == "finite"
    assert check.layers == ("blocks.1.bn1",)
    assert not verdict(ran).unused_ignores
    assert (work / "out" / "gate.json").exists()
    assert not (work / "out" / "audit.json").exists()
    assert "blocks.1.bn1" in bnaudit("gate", "inf.pt").out


def test_a_base_checkpoint_that_is_not_finite_is_a_bad_input(bnaudit: Run, work: Path) -> None:
    nan_statistics(work)
    line = one_line(bnaudit("gate", HEALTHY, "--base-checkpoint", "nan.pt"))
    assert "--base-checkpoint nan.pt" in line


def test_a_model_without_batchnorm_passes_with_a_note(bnaudit: Run, folder: Path) -> None:
    given = ("--model", "net.py:no_norm", "--data", "npz:data.npz")
    ran = bnaudit("gate", *given, "--min-accuracy", "0.9")
    assert ran.code == 0
    said = " ".join(ran.out.split())
    assert "no BatchNorm layer" in said
    assert "not judged: min_accuracy" in said


def test_a_limit_on_accuracy_without_labels_fails(bnaudit: Run, work: Path) -> None:
    with np.load(work / "digits.npz") as file:
        np.savez(work / "plain.npz", x=file["x_test"])
    plain = ("--data", "npz:plain.npz")
    (work / "bnaudit.toml").write_text(CONFIG.replace('data_arg = { split = "test" }\n', ""))
    ran = bnaudit("gate", HEALTHY, *plain, "--min-accuracy", "0.5")
    assert ran.code == 1
    assert ran.out.startswith("FAIL")
    assert "no labels" in " ".join(ran.out.split())
    assert bnaudit("gate", HEALTHY, *plain).code == 0
