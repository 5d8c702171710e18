"""`bnaudit gate` with baselines, which it writes and compares with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from gate_runs import CONFIG, HEALTHY, MODELS, WRONG, one_line, verdict
from workplace import Run, contents

from bnaudit.results import Audit


@pytest.mark.parametrize(
    "name",
    [pytest.param(m, marks=[pytest.mark.slow] * (f"{m}.pt" != WRONG)) for m in MODELS],
)
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
