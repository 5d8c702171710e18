"""`bnaudit config show`: what is in force, and from where."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from workplace import Run, contents

from bnaudit.config import Settings

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
    assert "settings have their default; --all shows them" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert contents(folder) == before


def test_a_threshold_that_follows_another_is_shown_with_its_value(
    folder: Path, bnaudit: Run
) -> None:
    (folder / "bnaudit.toml").write_text(CONFIG)
    table = rows(bnaudit("config", "show").out)
    assert table["thresholds.BN103.shift"] == ("0.2", "bnaudit.toml:6")
    assert "thresholds.BN301.shift" not in table  # has its own


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
        "file": "bnaudit.toml",
        "line": 9,
    }
    assert settings["seed"] == {"key": "seed", "value": 0, "file": None, "line": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 'x'", "bnaudit.toml:1: key 'seed': give an integer, got 'x'"),
        ("[gate]\nfail_onn = 1", "bnaudit.toml:2: unknown key 'gate.fail_onn'"),
        ("\nignore = ['BN0', 'BN999']", "bnaudit.toml:2: ignore: "),
        ("[severity]\nBN999 = 'info'", "bnaudit.toml:2: "),
    ],
)
def test_a_wrong_file_is_told(folder: Path, bnaudit: Run, text: str, says: str) -> None:
    (folder / "bnaudit.toml").write_text(text)
    ran = bnaudit("config", "show")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {says}")
