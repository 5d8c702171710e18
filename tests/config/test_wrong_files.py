"""A wrong configuration file: what was expected, what was given, and on which line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnaudit.config import read_config, resolve
from bnaudit.errors import InputError


def refused(folder: Path, text: str, name: str = "a.toml", **options: Any) -> str:
    """What is said against the file, without the folder."""
    path = folder / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        resolve(options, read_config(path))
    said = str(caught.value)
    assert "\n" not in said
    return said.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[gate]\nmax_layer_esn = 0.2",
            "a.toml:2: unknown key 'gate.max_layer_esn'; did you mean 'max_layer_esm'?",
        ),
        (
            "\ngate = { fail-on = 'error', tolerance.acuracy = 0.1 }",
            "a.toml:2: unknown key 'gate.tolerance.acuracy'; did you mean 'accuracy'?",
        ),
        (
            "seed = 1\n[gate]\nseed = 2",
            "a.toml:3: unknown key 'gate.seed'; it belongs at the top level, above the first table "
            "of the file",
        ),
        (
            "max-layer-esm = 0.2",
            "a.toml:1: unknown key 'max_layer_esm'; it belongs in the table [gate]",
        ),
        (
            "[gate]\nlayer_esm = 0.2",
            "a.toml:2: unknown key 'gate.layer_esm'; it belongs in the table [gate.tolerance]",
        ),
        (
            "[measure]\nseed = 2",
            "a.toml:1: unknown key 'measure'; verbs have no tables of their own: its keys stand at "
            "the top level of the file",
        ),
        (
            "seed = 1\n\n[compare]\nseed = 2",
            "a.toml:3: unknown key 'compare'; verbs have no tables of their own: its keys stand at "
            "the top level of the file",
        ),
        (
            "[tool.bnaudit]\nseed = 2",
            "a.toml:1: unknown key 'tool'; [tool.bnaudit] is for pyproject.toml, here its keys "
            "stand at the top level",
        ),
        (
            "[gate]\ntrust-pickle = true",
            "a.toml:2: unknown key 'gate.trust_pickle'; it is for the command line only: "
            "--trust-pickle",
        ),
        (
            "sed = 1\n[gate]\nbase = 1\n[gate.tolerance]\nesm = 1",
            "a.toml:1: unknown key 'sed'; did you mean 'seed'? (and 2 more unknown keys)",
        ),
        (
            "batch_size = 1\nbatch-size = 2",
            "a.toml: key 'batch-size' is given twice, with a dash and with an underscore; leave "
            "one",
        ),
    ],
)
def test_an_unknown_key_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text) == said


def test_the_line_is_that_of_pyproject_where_the_settings_stand_there(tmp_path: Path) -> None:
    text = "[project]\nseed = 1\n\n[tool.bnaudit]\n\n[tool.bnaudit.gate]\nmin-accuracy = 'high'\n"
    said = refused(tmp_path, text, "pyproject.toml")
    assert said == "pyproject.toml:7: key 'gate.min_accuracy': give a number, got 'high'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = 1.5", ":1: key 'seed': give an integer, got 1.5"),
        ("seed = true", ":1: key 'seed': give an integer, got true"),
        ("\nabove = '0.5'", ":2: key 'above': give a number, got '0.5'"),
        ("plots = 1", ":1: key 'plots': give true or false, got 1"),
        ("momentum = 0", ":1: key 'momentum': give a number greater than 0, got 0"),
        ("max_loss = inf", "give a number less than or equal to 100"),
        ("prior = nan", ":1: key 'prior': give a"),
        ("eps = inf", ":1: key 'eps': give a finite number, got inf"),
        ("model = ['x']", ":1: key 'model': give text, got ['x']"),
        ("seed = 1979-05-27", ":1: key 'seed': give an integer, got 1979-05-27 (a date or time)"),
        ("device = {a = 1}", ":1: key 'device': give text, got a table"),
        ("model_arg = 3", ":1: key 'model_arg': give a table, { name = value }, got 3"),
        ("gate = 3", ":1: key 'gate': give a table, { name = value }, got 3"),
        ("max_memory = []", ":1: key 'max_memory': give text or an integer, got []"),
        ("seed = 9223372036854775808", "give a number less than or equal to 9223372036854775807"),
        ("layers = [\n'a',\n3]", ":3: key 'layers[1]': give text, got 3"),
        (
            "[thresholds.BN101]\n\nshift = 'big'",
            ":3: key 'thresholds.BN101.shift': give a number, got 'big'",
        ),
        (
            "[severity]\nBN101 = 'grave'",
            ":2: key 'severity.BN101': give 'error', 'warning' or 'info', got 'grave'",
        ),
        (
            "[gate]\nfail_on = 'warn'",
            ":2: key 'gate.fail_on': give 'error', 'warning', 'info' or 'nothing', got 'warn'",
        ),
        (
            "[gate.per_layer_ignores]\n'stem.*' = [7]",
            ":2: key 'gate.per_layer_ignores.\"stem.*\"[0]': give text, got 7",
        ),
        (
            "[gate]\ntolerance.accuracy = 2",
            ":2: key 'gate.tolerance.accuracy': give a number less than or equal to 1, got 2",
        ),
        (
            "seed = 'a'\nplots = 'b'\n[gate]\nselect = 3",
            ":1: key 'seed': give an integer, got 'a' (and 2 more wrong values)",
        ),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected_and_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    assert said in refused(tmp_path, text)


def test_the_command_line_is_named_where_it_is_at_fault(tmp_path: Path) -> None:
    text = "[gate]\nmax_layer_esm = 0.1\nmin_accuracy = 'x'"
    said = refused(tmp_path, text, gate={"max_layer_esm": -1.0, "min_accuracy": 0.5})
    assert said == "--max-layer-esm: give a number greater than or equal to 0, got -1.0"


def test_settings_of_the_gate_are_merged_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        "[gate]\nfail-on = 'error'\nmax-layer-esm = 0.1\nbaseline = 'main.json'\n"
        "report = ['junit=out/gate.xml', 'github=-']\n[gate.tolerance]\naccuracy = 0.5\n"
    )
    options = {"gate": {"max_layer_esm": 0.2, "fail_on": None, "tolerance": {"layer_esm": 0.3}}}
    gate = resolve(options, read_config(path)).gate
    assert (gate.fail_on, gate.max_layer_esm) == ("error", 0.2)
    assert (gate.tolerance.accuracy, gate.tolerance.layer_esm) == (0.5, 0.3)
    assert gate.baseline == tmp_path / "main.json"
    assert gate.report == (f"junit={tmp_path}/out/gate.xml", "github=-")


@pytest.mark.parametrize("text", ["data = 'npz:~nobody_of_this_name/x'", 'output = "a\\u0000b"'])
def test_what_cannot_be_a_path_is_told(tmp_path: Path, text: str) -> None:
    assert "is no path: " in refused(tmp_path, f"\n{text}")
    assert refused(tmp_path, f"\n{text}").startswith("a.toml:2: key ")
