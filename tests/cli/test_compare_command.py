"""`bnaudit compare`: two Audits side by side, from the files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workplace import SAMPLES, Run, contents

from bnaudit.cli.main import app
from bnaudit.results import Audit, Changes

CONFIG = SAMPLES / "bnaudit.toml"


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`healthy` and `small_batch`: results of two sample models on the same samples."""
    here = tmp_path_factory.mktemp("audits")
    for name in ("healthy", "small_batch"):
        words = ["measure", SAMPLES / f"{name}.pt", "--config", CONFIG, "-o", here / name]
        words += ["--attribute", "none", "--no-plots"]
        app([str(word) for word in words], standalone_mode=False)
    return here


@pytest.fixture
def here(audits: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(audits)
    return audits


def test_a_model_that_got_worse_is_told_in_the_first_line(bnaudit: Run, here: Path) -> None:
    before = contents(here)
    ran = bnaudit("compare", "healthy", "small_batch/audit.json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Accuracy fell by 3.2 points (from 99.2 to 96.0%)")
    assert "output shift grew in 9 of 9 layers, most in blocks.3.bn2" in " ".join(ran.out.split())
    assert "the same samples on both sides" in ran.out
    assert "BN101 estimation-shift" in ran.out.split("Findings gained")[1]
    assert max(map(len, ran.out.splitlines())) <= 80
    assert contents(here) == before


def test_the_other_way_round_it_got_better(bnaudit: Run, here: Path) -> None:
    ran = bnaudit("compare", "small_batch", "healthy")
    assert ran.out.startswith("Accuracy rose by 3.2 points")
    assert "▽ better" in ran.out
    assert "▲ worse" not in ran.out
    assert "Findings gained" not in ran.out
    assert "BN101 estimation-shift" in ran.out.split("Findings lost")[1]


def test_an_audit_against_itself_did_not_change(bnaudit: Run, here: Path) -> None:
    ran = bnaudit("compare", "small_batch", "small_batch")
    assert ran.out.startswith("Nothing changed beyond noise: 9 layers")
    assert "worse" not in ran.out


def test_the_document_alone_is_on_stdout(bnaudit: Run, here: Path) -> None:
    ran = bnaudit("compare", "healthy", "small_batch", "--json")
    assert (ran.code, ran.err) == (0, "")
    changes = Changes.from_json(ran.out)
    assert changes.paired
    after = Audit.from_json(Path("small_batch/audit.json").read_text())
    for layer in changes.layers:
        shift = after.layer(layer.name).output_shift
        assert layer.output_shift is not None
        assert shift is not None
        assert layer.output_shift.after == pytest.approx(shift.value)


def test_files_are_written_where_asked(bnaudit: Run, here: Path, tmp_path: Path) -> None:
    ran = bnaudit("compare", "healthy", "small_batch", "-o", tmp_path / "out")
    assert ran.code == 0
    assert "changes.json, changes.csv, change_by_depth.png" in " ".join(ran.out.split())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "change_by_depth.png",
        "change_by_depth.svg",
        "changes.csv",
        "changes.json",
    ]
    document = json.loads((tmp_path / "out" / "changes.json").read_text())
    assert document == json.loads(bnaudit("compare", "healthy", "small_batch", "--json").out)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("healthy",), "after"),
        (("healthy", "hole.json"), "hole.json"),
        (("healthy", "healthy/layers.csv"), "healthy/layers.csv: not json"),
        (("healthy", "small_batch", "-o", "healthy/audit.json"), "--output healthy/audit.json"),
        (("healthy", "small_batch", "--nope"), "--nope"),
    ],
    ids=" ".join,
)
def test_a_wrong_request_is_answered_in_one_line(
    bnaudit: Run, here: Path, args: tuple[str, ...], said: str
) -> None:
    ran = bnaudit("compare", *args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err.lower()
    assert len(ran.err.splitlines()) == 1


def test_help_teaches_by_examples(bnaudit: Run) -> None:
    said = " ".join(bnaudit("compare", "--help").out.split())
    assert said.count("bnaudit compare") >= 3
