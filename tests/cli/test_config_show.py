"""`bnaudit config show`: what is in force, and from where."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from workplace import Run, contents

from bnaudit.config import Settings
from bnaudit.findings.catalogue import find_rule

CONFIG = """\
checkpoint = "good.pt"
model = "net.py:model"
model_arg = { width = 4 }

[thresholds.BN101]
shift = 0.2

[gate]
max-layer-esm = 0.3
baseline = "main.json"
tolerance.accuracy = 0.05

[gate.per_layer_ignores]
"layer1.*" = ["BN107"]
"""


def rows(out: str) -> dict[str, tuple[str, str]]:
    """The table's value and origin by key."""
    lines = (line.split("  ") for line in out.splitlines() if "  " in line)
    cells = ([cell.strip() for cell in line if cell.strip()] for line in lines)
    return {key: (value, origin) for key, value, origin in cells}


def test_it_shows_what_the_file_sets_and_on_which_line(folder: Path, bnaudit: Run) -> None:
    (folder / "bnaudit.toml").write_text(CONFIG)
    before = contents(folder)
    ran = bnaudit("config", "show")
    assert (ran.code, ran.err) == (0, "")
    table = rows(ran.out)
    assert table["model"] == ('"net.py:model"', "bnaudit.toml:2")
    assert table["model_arg.width"] == ("4", "bnaudit.toml:3")
    assert table["thresholds.BN101.shift"] == ("0.2", "bnaudit.toml:6")
    assert table["gate.max_layer_esm"] == ("0.3", "bnaudit.toml:9")
    assert table["gate.baseline"] == ('"main.json"', "bnaudit.toml:10")
    assert table["gate.tolerance.accuracy"] == ("0.05", "bnaudit.toml:11")
    assert table['gate.per_layer_ignores."layer1.*"'] == ('["BN107"]', "bnaudit.toml:14")
    assert "seed" not in table
    assert "settings have their default, or follow others; --all shows them" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["BN101", find_rule("BN101").name])
def test_thresholds_that_follow_another_are_shown_as_such_and_only_with_all(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    (folder / "bnaudit.toml").write_text(CONFIG.replace("BN101", name))
    table = rows(bnaudit("config", "show").out)
    assert [key for key in table if key.startswith("thresholds")] == ["thresholds.BN101.shift"]
    table = rows(bnaudit("config", "show", "--all").out)
    assert table["thresholds.BN101.shift"] == ("0.2", "bnaudit.toml:6")
    assert table["thresholds.BN103.shift"] == ("0.2", "follows BN101.shift")
    assert table["thresholds.BN301.shift"][1] == "default"  # has its own


def test_a_threshold_of_its_own_follows_none(folder: Path, bnaudit: Run) -> None:
    (folder / "bnaudit.toml").write_text(f"{CONFIG}\n[thresholds.BN103]\nshift = 0.4\n")
    table = rows(bnaudit("config", "show").out)
    assert table["thresholds.BN103.shift"] == ("0.4", "bnaudit.toml:17")


def test_what_depends_on_the_verb_or_on_another_setting_is_shown_as_it_will_be(
    folder: Path, bnaudit: Run
) -> None:
    table = rows(bnaudit("config", "show", "--all").out)
    assert table["batch_size"] == ("32, or a loader's own", "default")
    assert table["train_batch_size"] == ("32, as batch_size", "default")
    assert table["samples"] == ("2000; recalibrate: 1000", "default")
    (folder / "bnaudit.toml").write_text("batch_size = 8\n")
    table = rows(bnaudit("config", "show", "--all").out)
    assert table["batch_size"] == ("8", "bnaudit.toml:1")
    assert table["train_batch_size"] == ("8, as batch_size", "default")


@pytest.mark.parametrize("group", [[], ["config"]])
def test_a_group_without_a_verb_prints_its_help_and_no_error(
    bnaudit: Run, group: list[str]
) -> None:
    ran = bnaudit(*group)
    assert (ran.code, ran.err) == (2, "")
    assert "Usage: " in ran.out


def test_all_shows_every_setting_and_threshold(folder: Path, bnaudit: Run) -> None:
    table = rows(bnaudit("config", "show", "--all").out)
    assert table["seed"] == ("0", "default")
    assert table["checkpoint"] == ("not set", "default")
    assert table["thresholds.BN303.ratio"] == ("2.0", "default")
    assert table["gate.fail_on"] == ('"warning"', "default")
    roots = {key.partition(".")[0] for key in table}
    assert roots - {"setting"} == set(Settings.model_fields) - {"trust_pickle"}


def test_without_a_file_it_says_where_it_looked(folder: Path, bnaudit: Run) -> None:
    ran = bnaudit("config", "show")
    said = " ".join(ran.out.split())
    assert (ran.code, ran.err) == (0, "")
    assert "no configuration file: looked for bnaudit.toml, and for the table" in said
    assert "in pyproject.toml, in " in said
    assert str(folder) in "".join(ran.out.split())


def test_the_file_may_be_pyproject_or_another(folder: Path, bnaudit: Run) -> None:
    (folder / "pyproject.toml").write_text("[tool.bnaudit]\nseed = 5\n")
    (folder / "other.toml").write_text("\n\nseed = 6\n")
    assert rows(bnaudit("config", "show").out)["seed"] == ("5", "pyproject.toml:2")
    ran = bnaudit("config", "show", "--config", "other.toml")
    assert rows(ran.out)["seed"] == ("6", "other.toml:3")


def test_json_has_every_setting_and_nothing_else_on_stdout(folder: Path, bnaudit: Run) -> None:
    (folder / "bnaudit.toml").write_text(CONFIG)
    ran = bnaudit("config", "show", "--json")
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert (document["schema"], document["file"]) == (1, "bnaudit.toml")
    settings = {row["key"]: row for row in document["settings"]}
    assert settings["gate.max_layer_esm"] == {
        "key": "gate.max_layer_esm",
        "value": tomllib.loads(CONFIG)["gate"]["max-layer-esm"],
        "otherwise": None,
        "follows": None,
        "file": "bnaudit.toml",
        "line": 9,
    }
    assert (settings["seed"]["value"], settings["seed"]["file"]) == (0, None)
    assert settings["samples"]["otherwise"] == "2000; recalibrate: 1000"
    assert settings["thresholds.BN103.shift"]["follows"] == "BN101.shift"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 'x'", "bnaudit.toml:1: key 'seed': give an integer, got 'x'"),
        ("[gate]\nfail_onn = 1", "bnaudit.toml:2: unknown key 'gate.fail_onn'"),
        ("\nignore = ['BN0', 'BN999']", "bnaudit.toml:2: ignore: "),
        ("[severity]\nBN999 = 'info'", "bnaudit.toml:2: "),
        (
            "[gate]\nignore = [\n'BN106',\n'BN999']",
            "bnaudit.toml:4: gate.ignore: BN999: ",
        ),
        ("[gate]\nselect = 'BN999'", "bnaudit.toml:2: gate.select: BN999: no finding"),
        (
            "[gate.per_layer_ignores]\n'aux*' = ['BN1']\n'b*' = ['al']",
            "bnaudit.toml:3: gate.per_layer_ignores 'b*': al: no such code or check; did you mean "
            "'all'?",
        ),
        (
            "[gate.per_layer_ignores]\n'b*' = ['layer_esms']",
            "bnaudit.toml:2: gate.per_layer_ignores 'b*': layer_esms: no such code or check; did "
            "you mean 'layer_esm'?",
        ),
        (
            "[gate.per_layer_ignores]\n'b*' = ['XY']",
            "bnaudit.toml:2: gate.per_layer_ignores 'b*': XY: no finding has that code or name; "
            "bnaudit explain --all lists them; the checks are all, max_layer_esm, layer_esm",
        ),
        ("[gate]\nreport = 'junit:gate.xml'", "bnaudit.toml:2: gate.report junit:gate.xml: write "),
        ("[gate]\nreport = ['junt=a.xml']", "bnaudit.toml:2: gate.report junt=a.xml: no such form"),
        ("[thresholds.BN101]\nshift = 0.2\nshft = 0.1", "bnaudit.toml:3: threshold BN101.shft: "),
        ("[thresholds.BN999]\nshift = 0.2", "bnaudit.toml:1: "),
    ],
)
def test_a_wrong_file_is_told(folder: Path, bnaudit: Run, text: str, says: str) -> None:
    (folder / "bnaudit.toml").write_text(text)
    ran = bnaudit("config", "show")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {says}")


@pytest.mark.parametrize("verb", ["inspect", "measure", "gate"])
def test_every_verb_tells_the_line_of_what_the_gate_would_refuse(
    folder: Path, bnaudit: Run, verb: str
) -> None:
    (folder / "bnaudit.toml").write_text("[gate]\nignore = ['BN999']\n")
    ran = bnaudit(verb, "good.pt")
    assert (ran.code, ran.out) == (2, "")
    assert "error: bnaudit.toml:2: gate.ignore: BN999: no finding" in ran.err


def test_a_report_that_cannot_be_written_is_told_by_what_would_write_it(
    folder: Path, bnaudit: Run
) -> None:
    (folder / "bnaudit.toml").write_text("[gate]\nreport = ['json=a.json', 'junit=images']\n")
    ran = bnaudit("config", "show")
    assert ran.code == 2
    assert "bnaudit.toml:2: --report junit=images: images is a folder" in ran.err
    assert bnaudit("inspect", "good.pt").code == 0


def test_codes_checks_and_reports_that_the_gate_takes_are_taken(folder: Path, bnaudit: Run) -> None:
    (folder / "bnaudit.toml").write_text(
        "[gate]\nselect = ['BN1', 'never-updated']\nignore = 'BN106'\nreport = 'junit=gate.xml'\n"
        "[gate.per_layer_ignores]\n'aux*' = ['all', 'BN1', 'layer_esm', 'never-updated']\n"
    )
    assert bnaudit("config", "show").code == 0
