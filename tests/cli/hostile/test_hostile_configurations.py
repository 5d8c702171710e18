"""Configurations that are damaged or made up: one line, exit code 2, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attacks import NOT_FILES, OTHER_FILES, Refused, in_turn, kinds, put

GOOD = """\
checkpoint = "good.pt"
model = "net.py:model"
data = "npz:data.npz"
plots = false
"""

VERBS: dict[str, list[str]] = {
    verb: [verb, "good.pt", "--config", "bad.toml"]
    for verb in ("measure", "inspect", "recalibrate", "gate")
}

DEEP = 100_000

TEXTS: list[tuple[str, str | bytes, str]] = [
    ("cut within a text", GOOD[:17], "cannot be read as TOML"),
    ("cut within a table's name", GOOD + "[gate", "cannot be read as TOML"),
    ("cut after the equals sign", GOOD + "seed =", "cannot be read as TOML"),
    ("JSON", '{"seed": 1}', "cannot be read as TOML"),
    ("YAML", "seed: 1\nplots: no\n", "cannot be read as TOML"),
    ("a merge conflict", f"<<<<<<< HEAD\n{GOOD}", "cannot be read as TOML"),
    ("Latin-1", (GOOD + "device = 'ü'").encode("latin-1"), "not UTF-8"),
    ("UTF-16", GOOD.encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
    ("null characters", GOOD.replace("\n", "\0\n"), "cannot be read as TOML"),
    ("an escape sequence", GOOD + "seed = 1 # \x1b[31m", "cannot be read as TOML"),
    ("lists in lists", "layers = " + "[" * DEEP + "]" * DEEP, "nested too deeply"),
    ("lists without an end", "layers = " + "[" * DEEP, "nested too deeply"),
    ("tables in tables", "model_arg = " + "{a = " * DEEP, "nested too deeply"),
    ("a key of many parts", "model_arg" + ".a" * DEEP + " = 1", "a key of more than 16 parts"),
    ("a table of many parts", "[model_arg" + ".a" * DEEP + "]", "a key of more than 16 parts"),
    ("nested twenty deep", "[model_arg.a]\nb = " + "[" * 20 + "]" * 20, "more than 16 deep"),
    ("a number of 5000 digits", "seed = " + "9" * 5000, "cannot be read as TOML"),
    ("a number of 400 digits", "seed = " + "9" * 400, ":1: key 'seed': give a number less"),
    ("the same in base 16", "prior = 0x" + "f" * 9000, ":1: key 'prior': give a"),
    ("a number without a limit", "max_loss = 1e999", ":1: key 'max_loss': give a number less"),
    ("no number", "prior = nan", ":1: key 'prior': give a"),
    ("no number of the gate", "[gate]\nmin_accuracy = nan", ":2: key 'gate.min_accuracy'"),
    ("minus infinity", "[gate]\nmax_layer_esm = -inf", ":2: key 'gate.max_layer_esm'"),
    ("a date", "batch_size = 2020-01-01", "give an integer, got 2020-01-01 (a date"),
    ("a list of tables", "[[gate]]\nfail_on = 'error'", ":1: key 'gate': give a table"),
    ("a table for text", "[model]\nname = 'x'", ":1: key 'model': give text, got a table"),
    ("a key twice", "seed = 1\nseed = 2", "cannot be read as TOML"),
    ("a key with a dash as well", "batch_size = 1\nbatch-size = 2", "is given twice"),
    ("a table twice", "[gate]\n[gate]\n", "cannot be read as TOML"),
    ("a key that clears the screen", '"\\u001b[2Jseed" = 1', "unknown key"),
    ("a value that clears the screen", 'dtype = "\\u001b[2J"', "key 'dtype'"),
    ("a value over several lines", 'dtype = """\na\nerror: b"""', "key 'dtype'"),
    ("a path with a null character", 'data = "npz:a\\u0000b"', ":1: key 'data'"),
    ("the home of nobody", "[gate]\nbaseline = '~nobody_there/x'", ":2: key 'gate.baseline'"),
    ("pickles trusted", "trust_pickle = true", ":1: trust_pickle is for the command line only"),
    ("pickles trusted in a table", "[gate]\ntrust_pickle = true", "for the command line only"),
    ("a code that does not exist", "\n[thresholds.BN999]\nx = 1", ":2: "),
    ("a severity for nothing", "severity.BN999 = 'info'", "bad.toml:1: "),
    (
        "a threshold below 0",
        "thresholds.BN101.shift = -1",
        "bad.toml:1: threshold BN101.shift is -1",
    ),
    ("too large", "# " + "x" * 2**20, "larger than 1 MiB"),
]


@pytest.mark.parametrize(("text", "says", "verb"), in_turn(TEXTS, VERBS))
def test_a_damaged_configuration_is_refused(
    refused: Refused, text: str | bytes, says: str, verb: str
) -> None:
    put(Path("bad.toml"), text)
    assert says in refused(*VERBS[verb])


@pytest.mark.parametrize(("kind", "verb"), in_turn(kinds(OTHER_FILES), VERBS))
def test_another_file_in_place_of_a_configuration_is_refused(
    refused: Refused, kind: str, verb: str
) -> None:
    OTHER_FILES[kind](Path("bad.toml"))
    assert "bad.toml: cannot be read as TOML" in refused(*VERBS[verb])
    assert not Path("marker").exists()


@pytest.mark.parametrize(("kind", "verb"), in_turn(kinds(NOT_FILES), VERBS))
def test_what_is_no_file_is_refused_and_not_waited_for(
    refused: Refused, kind: str, verb: str
) -> None:
    NOT_FILES[kind](Path("bad.toml"))
    args = [*VERBS[verb][:-1], "net.py/bad.toml" if "below" in kind else "bad.toml"]
    assert "bad.toml: " in refused(*args)


def test_a_name_that_is_too_long_is_refused(refused: Refused) -> None:
    assert "no such file" in refused("measure", "--config", "x" * 5000)


@pytest.mark.parametrize("setting", ["baseline", "base_checkpoint"])
def test_a_configuration_that_points_to_itself_is_refused(refused: Refused, setting: str) -> None:
    put(Path("bad.toml"), f'{GOOD}[gate]\n{setting} = "bad.toml"\n')
    assert "bad.toml: " in refused("gate", "--config", "bad.toml")


@pytest.mark.parametrize("name", ["bnaudit.toml", "pyproject.toml"])
def test_a_damaged_file_that_is_found_stops_the_command(refused: Refused, name: str) -> None:
    put(Path(name), "[tool.bnaudit\n")
    assert refused("inspect", "good.pt").startswith(f"error: {name}: cannot be read as TOML")


@pytest.mark.parametrize("kind", [kind for kind in NOT_FILES if "below" not in kind])
def test_what_is_no_file_is_not_found_as_a_configuration(
    folder: Path, bnaudit: object, kind: str
) -> None:
    NOT_FILES[kind](Path("bnaudit.toml"))
    NOT_FILES["a pipe"](Path("pyproject.toml"))
    ran = bnaudit("inspect", "good.pt")  # type: ignore[operator]
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(refused: Refused) -> None:
    Path("bad.toml").write_text(GOOD)
    Path("bad.toml").chmod(0)
    assert "bad.toml: cannot be read as TOML: Permission denied" in refused(*VERBS["measure"])
