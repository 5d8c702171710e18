"""What `bnaudit gate` prints and writes, and Audits that it judges without measuring."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gate_runs import HEALTHY, WRONG, one_line, verdict
from workplace import Run

from bnaudit.results import Audit, Gate


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
