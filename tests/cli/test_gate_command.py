"""`bnaudit gate` from the command line: exit codes, outputs, baselines, and what wins over what."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from workplace import SAMPLES, Ran, Run, contents

from bnaudit.cli.main import app
from bnaudit.config import Settings
from bnaudit.errors import InputError
from bnaudit.results import Audit, Gate

CONFIG = """\
model = "digits.py:model"
data = "npz:digits.npz"
data_arg = { split = "test" }
transform = "digits.py:transform"
samples = "all"
attribute = "none"
plots = false
"""

HEALTHY, WRONG = "healthy.pt", "small_batch.pt"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample models, and Audits of two of them."""
    here = tmp_path_factory.mktemp("samples")
    for name in ("digits.py", "digits.npz", *(f"{name}.pt" for name in MODELS)):
        shutil.copy(SAMPLES / name, here / name)
    (here / "bnaudit.toml").write_text(CONFIG)
    return here


MODELS = ("healthy", "averaged", "small_batch", "lagging_ema")


@pytest.fixture
def work(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the samples, with what a test has measured before."""
    here = tmp_path / "work"
    shutil.copytree(samples, here)
    monkeypatch.chdir(here)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return here


@pytest.fixture
def audit(bnaudit: Run, samples: Path, work: Path) -> Path:
    """healthy.json, the Audit of healthy.pt: measured once."""
    kept = samples / "healthy.json"
    if not kept.exists():
        assert bnaudit("gate", HEALTHY, "--write-baseline", "--baseline", kept).code == 0
    return Path(shutil.copy(kept, work / "healthy.json"))


@pytest.fixture
def wrong_audit(bnaudit: Run, samples: Path, work: Path) -> Path:
    """wrong.json, the Audit of small_batch.pt: measured once."""
    kept = samples / "wrong.json"
    if not kept.exists():
        assert bnaudit("gate", WRONG, "--write-baseline", "--baseline", kept).code == 0
    return Path(shutil.copy(kept, work / "wrong.json"))


def verdict(ran: Ran) -> Gate:
    """What `--format json` printed, and nothing else."""
    assert ran.code in (0, 1), ran.err
    return Gate.from_json(ran.out)


def one_line(ran: Ran) -> str:
    """The only thing that is said of a bad input, but for the file with the settings."""
    assert ran.code == 2
    assert ran.out == ""
    lines = [line for line in ran.err.splitlines() if not line.startswith("using settings from")]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("error: ")
    return lines[0]


# Exit codes and what is printed.


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
        ((), "--data"),
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


# Forms and files.


def test_json_on_stdout_is_the_gate_and_nothing_else(bnaudit: Run, work: Path) -> None:
    ran = bnaudit("gate", WRONG, "--format", "json")
    found = verdict(ran)
    assert (ran.code, found.outcome, found.exit_code) == (1, "fail", 1)
    assert ran.out == found.to_json()
    assert found.subject.source == WRONG
    assert found.subject.samples == 497


@pytest.mark.parametrize("kind", ["json", "junit", "markdown", "github"])
def test_stdout_and_a_report_have_the_same_text(bnaudit: Run, audit: Path, kind: str) -> None:
    ran = bnaudit("gate", audit, "--format", kind, "--report", f"{kind}=report")
    assert ran.code == 0
    assert Path("report").read_text() == ran.out


def test_several_reports_are_written_at_once_into_folders_that_are_made(
    bnaudit: Run, wrong_audit: Path
) -> None:
    names = {"json": "a/gate.json", "junit": "a/gate.xml", "markdown": "b/summary.md"}
    given = [part for kind, name in names.items() for part in ("--report", f"{kind}={name}")]
    ran = bnaudit("gate", wrong_audit, *given)
    assert ran.code == 1
    assert Gate.from_json(Path(names["json"]).read_text()).outcome == "fail"
    assert "<testsuite" in Path(names["junit"]).read_text()
    assert "BN101" in Path(names["markdown"]).read_text()
    said = " ".join(ran.out.split())
    assert "written to a: gate.json, gate.xml" in said
    assert "written to b: summary.md" in said


def test_github_gets_annotations_and_its_summary(
    bnaudit: Run, wrong_audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "step.md")
    Path("step.md").write_text("of an earlier command\n")
    ran = bnaudit("gate", wrong_audit, "--format", "github")
    assert ran.code == 1
    assert all(line.startswith("::") for line in ran.out.splitlines())
    assert "::error " in ran.out
    assert "BN101" in ran.out
    summary = Path("step.md").read_text()
    assert summary.startswith("of an earlier command\n")
    assert "BN101" in summary


def test_without_github_no_summary_is_appended(
    bnaudit: Run, wrong_audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "step.md")
    bnaudit("gate", wrong_audit, "--format", "markdown")
    assert not Path("step.md").exists()


def test_the_folder_of_results_has_the_audit_and_the_gate(bnaudit: Run, work: Path) -> None:
    ran = bnaudit("gate", WRONG, "-o", "results", "--format", "json")
    assert Gate.from_json((work / "results" / "gate.json").read_text()) == verdict(ran)
    audit = Audit.from_json((work / "results" / "audit.json").read_text())
    assert audit.model.checkpoint == WRONG
    assert verdict(bnaudit("gate", "results", "--format", "json")).outcome == "fail"


def test_a_gate_beside_the_audit_that_it_judges_leaves_that_as_it_is(
    bnaudit: Run, wrong_audit: Path, work: Path
) -> None:
    (work / "results").mkdir()
    kept = Path(shutil.copy(wrong_audit, work / "results" / "audit.json"))
    document = json.loads(kept.read_text())
    kept.write_text(json.dumps(document))  # the same figures, otherwise set
    before = kept.read_bytes()
    assert bnaudit("gate", "results", "-o", "results").code == 1
    assert kept.read_bytes() == before
    assert (work / "results" / "gate.json").exists()


def test_all_shows_every_layer(bnaudit: Run, wrong_audit: Path, audit: Path) -> None:
    shorter = bnaudit("gate", wrong_audit, "--baseline", audit).out
    longer = bnaudit("gate", wrong_audit, "--baseline", audit, "--all").out
    assert "blocks.0.bn1" not in shorter
    assert "blocks.0.bn1" in longer


# Audits that exist.


def test_an_audit_is_judged_as_the_checkpoint_is(bnaudit: Run, wrong_audit: Path) -> None:
    of_audit = verdict(bnaudit("gate", wrong_audit, "--format", "json"))
    of_checkpoint = verdict(bnaudit("gate", WRONG, "--format", "json"))
    assert of_audit.checks == of_checkpoint.checks
    assert of_audit.sentence == of_checkpoint.sentence
    assert of_audit.subject.source == str(wrong_audit)


def test_an_audit_is_judged_without_a_model_or_data(
    bnaudit: Run, wrong_audit: Path, work: Path
) -> None:
    for name in ("bnaudit.toml", "digits.py", "digits.npz", WRONG):
        (work / name).unlink()
    assert bnaudit("gate", wrong_audit).code == 1
    assert bnaudit("gate", wrong_audit, "--fail-on", "error").code == 0


WITHOUT_TORCH = """
import sys
from bnaudit.cli.main import run
try:
    run()
finally:
    assert "torch" not in sys.modules
"""


def test_an_audit_is_judged_without_torch(wrong_audit: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "gate", str(wrong_audit)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "BN101" in ran.stdout
    assert "Traceback" not in ran.stderr


def test_options_that_only_measure_are_refused_beside_an_audit(
    bnaudit: Run, wrong_audit: Path
) -> None:
    line = one_line(bnaudit("gate", wrong_audit, "--samples", "100", "--data-arg", "split=train"))
    assert "--data-arg, --samples" in line
    assert "give the checkpoint" in line


def test_a_base_checkpoint_beside_an_audit_is_refused(bnaudit: Run, wrong_audit: Path) -> None:
    line = one_line(bnaudit("gate", wrong_audit, "--base-checkpoint", HEALTHY))
    assert "--base-checkpoint" in line
    assert "is an Audit" in line


# Baselines.


@pytest.mark.parametrize("name", MODELS)
def test_what_was_accepted_as_baseline_passes_afterwards(
    bnaudit: Run, work: Path, name: str
) -> None:
    ran = bnaudit("gate", f"{name}.pt", "--write-baseline")
    assert ran.code == 0
    assert "baseline written to bnaudit-baseline.json" in ran.err
    Audit.from_json((work / "bnaudit-baseline.json").read_text())
    against = ("gate", f"{name}.pt", "--baseline", "bnaudit-baseline.json")
    found = verdict(bnaudit(*against, "--format", "json"))
    assert (found.outcome, found.exit_code) == ("pass", 0)
    assert found.changes is not None
    assert found.changes.paired


def test_writing_a_baseline_says_how_many_findings_it_accepts(bnaudit: Run, work: Path) -> None:
    ran = bnaudit("gate", WRONG, "--write-baseline", "--baseline", "baselines/main.json")
    assert ran.code == 0
    assert "it accepts 3 findings" in ran.err
    assert (work / "baselines" / "main.json").exists()


def test_what_the_settings_ignore_is_not_accepted_by_a_baseline(bnaudit: Run, work: Path) -> None:
    (work / "bnaudit.toml").write_text(f'{CONFIG}[gate]\nignore = ["BN101"]\n')
    assert "it accepts 2 findings" in bnaudit("gate", WRONG, "--write-baseline").err


def test_limits_hold_while_a_baseline_is_written(bnaudit: Run, work: Path) -> None:
    ran = bnaudit("gate", WRONG, "--write-baseline", "--max-layer-esm", "0.1")
    assert ran.code == 1
    assert "max_layer_esm" in ran.out


def test_what_got_worse_than_the_baseline_fails(
    bnaudit: Run, wrong_audit: Path, audit: Path
) -> None:
    ran = bnaudit("gate", wrong_audit, "--baseline", audit, "--format", "json")
    found = verdict(ran)
    assert ran.code == 1
    names = {check.name: check.layers for check in found.with_outcome("fail")}
    assert {"BN101", "layer_esm"} <= names.keys()
    assert names["layer_esm"][0] == "blocks.3.bn2"
    assert bnaudit("gate", audit, "--baseline", wrong_audit).code == 0


def test_the_baseline_may_be_a_folder_of_results(bnaudit: Run, audit: Path, work: Path) -> None:
    (work / "main").mkdir()
    shutil.copy(audit, work / "main" / "audit.json")
    assert bnaudit("gate", audit, "--baseline", "main").code == 0


def test_the_checkpoint_before_it_is_measured_on_the_same_samples(bnaudit: Run, work: Path) -> None:
    ran = bnaudit(
        "gate", WRONG, "--base-checkpoint", HEALTHY, "--samples", "300", "--format", "json"
    )
    found = verdict(ran)
    assert ran.code == 1
    assert found.changes is not None
    assert found.changes.paired
    assert found.changes.before.source == HEALTHY
    assert found.changes.before.samples == 300
    assert "blocks.3.bn2" in {x for check in found.with_outcome("fail") for x in check.layers}
    assert bnaudit("gate", WRONG, "--base-checkpoint", WRONG, "--samples", "100").code == 0


def test_a_base_checkpoint_counts_instead_of_a_baseline(
    bnaudit: Run, work: Path, audit: Path
) -> None:
    """The strongest form; the baseline that the file names is not even read."""
    (work / "bnaudit.toml").write_text(f'{CONFIG}[gate]\nbaseline = "nope.json"\n')
    found = verdict(bnaudit("gate", WRONG, "--base-checkpoint", WRONG, "--format", "json"))
    assert found.outcome == "pass"
    assert found.changes is not None
    assert found.changes.before.source == WRONG


def test_a_baseline_that_is_missing_says_how_to_write_it(bnaudit: Run, work: Path) -> None:
    line = one_line(bnaudit("gate", HEALTHY, "--baseline", "main.json"))
    assert "main.json: no such file" in line
    assert "--write-baseline" in line


def test_a_baseline_of_another_network_is_refused(bnaudit: Run, audit: Path) -> None:
    text = audit.read_text().replace('"blocks.', '"stages.').replace('"bn"', '"stem_norm"')
    document = json.loads(text)
    for layer in document["layers"]:
        layer["channels"] += 1
        layer["name"] = f"{layer['name']}.norm"
    Path("other.json").write_text(json.dumps(document))
    line = one_line(bnaudit("gate", audit, "--baseline", "other.json"))
    assert "another network" in line


@pytest.mark.parametrize(
    "args",
    [
        (HEALTHY, "--write-baseline", "--baseline", HEALTHY),
        (HEALTHY, "--write-baseline", "--baseline", WRONG),
        (HEALTHY, "--write-baseline", "--baseline", "digits.npz"),
        (HEALTHY, "--write-baseline", "--baseline", "bnaudit.toml"),
        (HEALTHY, "--report", "json=digits.py"),
        (HEALTHY, "--report", "json=digits.npz"),
        (HEALTHY, "--report", "json=bnaudit.toml"),
        (HEALTHY, "--report", f"json={HEALTHY}"),
        (HEALTHY, "--base-checkpoint", WRONG, "--report", f"json={WRONG}"),
        (HEALTHY, "--baseline", "results/audit.json", "-o", "results"),
        (HEALTHY, "--baseline", "results", "-o", "results"),
        ("healthy.json", "--baseline", "results", "--report", "json=healthy.json"),
        ("healthy.json", "--write-baseline", "--baseline", "healthy.json"),
    ],
    ids=" ".join,
)
def test_nothing_that_is_read_is_replaced(
    bnaudit: Run, audit: Path, work: Path, args: tuple[str, ...]
) -> None:
    (work / "results").mkdir()
    shutil.copy(audit, work / "results" / "audit.json")
    before = contents(work)
    one_line(bnaudit("gate", *args))
    assert contents(work) == before


def test_an_older_or_damaged_baseline_can_be_written_anew(
    bnaudit: Run, audit: Path, work: Path
) -> None:
    whole = audit.read_text()
    for text in (whole[:2000], whole.replace('"schema": 1', '"schema": 99', 1), ""):
        (work / "main.json").write_text(text)
        assert bnaudit("gate", audit, "--write-baseline", "--baseline", "main.json").code == 0
        assert (work / "main.json").read_text() == whole


def test_the_inputs_are_left_as_they_are(bnaudit: Run, work: Path) -> None:
    before = {name: x for name, x in contents(work).items() if "__pycache__" not in name}
    bnaudit("gate", WRONG, "--base-checkpoint", HEALTHY, "-o", "out", "--report", "json=g.json")
    after = contents(work)
    assert {name: after[name] for name in before} == before


# Models that have no figures.


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


# Every option reaches its setting, and wins over the file.


def gate_command() -> Any:
    return typer.main.get_command(app).commands["gate"]  # type: ignore[attr-defined]


OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], object, str]] = {
    # parameter: (as given, the setting, its value, what the file says otherwise)
    "fail_on": (("--fail-on", "info"), ("gate", "fail_on"), "info", '"error"'),
    "inconclusive": (("--inconclusive", "pass"), ("gate", "inconclusive"), "pass", '"fail"'),
    "max_layer_esm": (("--max-layer-esm", "0.2"), ("gate", "max_layer_esm"), 0.2, "0.9"),
    "max_total_esm": (("--max-total-esm", "0.2"), ("gate", "max_total_esm"), 0.2, "0.9"),
    "max_disagreement": (("--max-disagreement", "0"), ("gate", "max_disagreement"), 0.0, "0.9"),
    "max_cross_entropy": (("--max-cross-entropy", "2"), ("gate", "max_cross_entropy"), 2.0, "9"),
    "min_accuracy": (("--min-accuracy", "0"), ("gate", "min_accuracy"), 0.0, "0.9"),
    "baseline": (("--baseline", "b.json"), ("gate", "baseline"), Path("b.json"), '"x.json"'),
    "base_checkpoint": (
        ("--base-checkpoint", "o.pt"),
        ("gate", "base_checkpoint"),
        Path("o.pt"),
        '"x.pt"',
    ),
    "report": (
        ("--report", "json=a.json", "--report", "junit=b.xml"),
        ("gate", "report"),
        ("json=a.json", "junit=b.xml"),
        '["markdown=x.md"]',
    ),
    "subject": (("c.pt",), ("checkpoint",), Path("c.pt"), '"x.pt"'),
    "threshold": (
        ("--threshold", "BN101.shift=0.3"),
        ("thresholds",),
        {"BN101": {"shift": 0.3}},
        "{ BN101 = { shift = 0.9 } }",
    ),
    "select": (("--select", "BN1", "--select", "BN2"), ("select",), ["BN1", "BN2"], '["BN3"]'),
    "ignore": (("--ignore", "BN107"), ("ignore",), ["BN107"], '["BN3"]'),
    "model": (("--model", "a.py:f"), ("model",), "a.py:f", '"x.py:f"'),
    "model_arg": (("--model-arg", "depth=3"), ("model_arg",), {"depth": 3}, "{ depth = 9 }"),
    "checkpoint_key": (("--checkpoint-key", "ema"), ("checkpoint_key",), "ema", '"x"'),
    "allow_mismatch": (("--allow-mismatch",), ("allow_mismatch",), True, "false"),
    "trust_pickle": (("--trust-pickle",), ("trust_pickle",), True, ""),
    "data": (("--data", "npz:a.npz"), ("data",), "npz:a.npz", '"npz:x.npz"'),
    "data_arg": (("--data-arg", "split=val"), ("data_arg",), {"split": "val"}, '{ split = "x" }'),
    "transform": (("--transform", "imagenet"), ("transform",), "imagenet", '"x.py:f"'),
    "samples": (("--samples", "all"), ("samples",), "all", "9"),
    "skip_bad": (("--no-skip-bad",), ("skip_bad",), False, "true"),
    "train_data": (("--train-data", "npz:t.npz"), ("train_data",), "npz:t.npz", '"npz:x.npz"'),
    "train_data_arg": (
        ("--train-data-arg", "split=t"),
        ("train_data_arg",),
        {"split": "t"},
        '{ split = "x" }',
    ),
    "batch_size": (("--batch-size", "16"), ("batch_size",), 16, "9"),
    "train_batch_size": (("--train-batch-size", "8"), ("train_batch_size",), 8, "9"),
    "attribute": (("--attribute", "all"), ("attribute",), "all", "9"),
    "device": (("--device", "cpu"), ("device",), "cpu", '"cuda"'),
    "dtype": (("--dtype", "bf16"), ("dtype",), "bf16", '"fp16"'),
    "channels_last": (("--channels-last",), ("channels_last",), True, "false"),
    "workers": (("--workers", "2"), ("workers",), 2, "9"),
    "seed": (("--seed", "5"), ("seed",), 5, "9"),
    "forward": (("--forward", "a.py:f"), ("forward",), "a.py:f", '"x.py:f"'),
    "task": (("--task", "other"), ("task",), "other", '"classification"'),
    "compare": (("--compare", "a.py:f"), ("compare",), "a.py:f", '"x.py:f"'),
    "output": (("-o", "out"), ("output",), Path("out"), '"x"'),
    "plots": (("--no-plots",), ("plots",), False, "true"),
}

TESTED_BY_WHAT_THEY_DO = {"config", "output_format", "show_all", "write_baseline"}


def test_every_option_is_tested_to_do_something() -> None:
    names = {parameter.name for parameter in gate_command().params} - {"help"}
    assert names == OPTIONS.keys() | TESTED_BY_WHAT_THEY_DO


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reaches_its_setting_and_wins_over_the_file(
    bnaudit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given, place, expected, otherwise = OPTIONS[name]
    seen: list[Settings] = []

    def judged(settings: Settings, *_: object, **__: object) -> None:
        seen.append(settings)
        raise InputError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bnaudit.cli.gate._judged", judged)
    table = "[gate]\n" if place[0] == "gate" else ""
    line = f"{table}{place[-1]} = {otherwise}\n" if otherwise else ""
    (tmp_path / "other.toml").write_text(line)
    assert "enough" in one_line(bnaudit("gate", *given, "--config", "other.toml"))
    value: Any = seen[0]
    for part in place:
        value = getattr(value, part)
    assert value == expected
    if otherwise:
        bnaudit("gate", "--config", "other.toml")
        value = seen[1]
        for part in place:
            value = getattr(value, part)
        assert value != expected


def test_the_table_of_the_file_is_in_force(bnaudit: Run, work: Path, audit: Path) -> None:
    (work / "gate.toml").write_text(
        """\
[gate]
max_layer_esm = 0.12
max_total_esm = 5.0
ignore = ["BN1"]
report = ["json=here/gate.json"]
per_layer_ignores = { "blocks.3.*" = ["max_layer_esm"], "head.*" = ["all"] }
"""
    )
    (work / "wrong.json").write_bytes(_measured(bnaudit, work).read_bytes())
    ran = bnaudit("gate", "wrong.json", "--config", "gate.toml", "--select", "BN1")
    assert ran.code == 1
    found = Gate.from_json((work / "here" / "gate.json").read_text())
    (check,) = found.with_outcome("fail")
    assert (check.name, check.layers) == ("max_layer_esm", ("blocks.2.bn2",))
    assert "gate.per_layer_ignores 'head.*' all: matches no layer" in found.unused_ignores
    assert {each.setting for each in found.waived} == {"gate.ignore BN1"}


def _measured(bnaudit: Run, work: Path) -> Path:
    assert bnaudit("gate", WRONG, "--write-baseline", "--baseline", "m.json").code == 0
    return work / "m.json"


def test_the_file_in_the_folder_is_named_before_it_is_used(bnaudit: Run, work: Path) -> None:
    assert bnaudit("gate", HEALTHY).err.startswith("using settings from bnaudit.toml")


def test_a_figure_without_labels_is_inconclusive(bnaudit: Run, work: Path) -> None:
    with np.load(work / "digits.npz") as file:
        np.savez(work / "plain.npz", x=file["x_test"])
    plain = ("--data", "npz:plain.npz")
    (work / "bnaudit.toml").write_text(CONFIG.replace('data_arg = { split = "test" }\n', ""))
    ran = bnaudit("gate", HEALTHY, *plain, "--min-accuracy", "0.5")
    assert ran.code == 1
    assert ran.out.startswith("INCONCLUSIVE")
    assert "labelled data" in " ".join(ran.out.split())
    assert bnaudit("gate", HEALTHY, *plain).code == 0
