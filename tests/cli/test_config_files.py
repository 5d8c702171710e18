"""Configuration files at work: found or given, named, and overridden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workplace import Run

CONFIG = """\
checkpoint = "good.pt"
model = "net.py:model"
data = "npz:data.npz"
plots = false
"""


def say_that_it_runs(net: Path) -> None:
    net.write_text('import sys\nprint("net.py runs", file=sys.stderr)\n' + net.read_text())


@pytest.mark.parametrize("name", ["bnaudit.toml", "pyproject.toml"])
def test_a_file_that_is_found_is_named_before_what_it_points_to_runs(
    folder: Path, bnaudit: Run, name: str
) -> None:
    say_that_it_runs(folder / "net.py")
    table = "[tool.bnaudit]\n" if name == "pyproject.toml" else ""
    (folder / name).write_text(table + CONFIG)
    ran = bnaudit("measure")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines() == [f"using settings from {name}", "net.py runs"]
    assert "good.pt" in ran.out
    assert (folder / "bnaudit-results" / "good" / "audit.json").exists()


def test_a_file_that_is_given_is_read_instead_of_the_one_found(folder: Path, bnaudit: Run) -> None:
    (folder / "bnaudit.toml").write_text(CONFIG + "seed = 1")
    (folder / "other.toml").write_text(CONFIG + "seed = 2")
    ran = bnaudit("measure", "--config", "other.toml", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["data"]["seed"] == 2


def test_the_command_line_wins_and_arguments_are_merged(folder: Path, bnaudit: Run) -> None:
    (folder / "bnaudit.toml").write_text(
        CONFIG.replace('checkpoint = "good.pt"\n', "") + "seed = 1\nsamples = 30\n"
        "model_arg = {width = 5, depth = 4}\n"
    )
    ran = bnaudit("measure", "--seed", "7", "--model-arg", "depth=2", "--json")
    assert ran.code == 0, ran.err
    audit = json.loads(ran.out)
    assert (audit["data"]["seed"], audit["data"]["samples"]) == (7, 30)
    assert [layer["channels"] for layer in audit["layers"]] == [5, 5]


def test_paths_are_relative_to_the_file_and_not_to_where_one_stands(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.toml").write_text(CONFIG + 'output = "results"')
    elsewhere = folder / "images" / "cat"
    monkeypatch.chdir(elsewhere)
    before = sorted(elsewhere.iterdir())
    ran = bnaudit("measure", "--config", "../../a.toml")
    assert ran.code == 0, ran.err
    assert (folder / "results" / "audit.json").exists()
    assert sorted(elsewhere.iterdir()) == before


def test_plots_of_the_file_can_be_turned_on_again(folder: Path, bnaudit: Run) -> None:
    (folder / "bnaudit.toml").write_text(CONFIG)
    assert bnaudit("measure", "--plots", "-o", "r").code == 0
    assert len(list((folder / "r").glob("*.png"))) == 5
