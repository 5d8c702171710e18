"""Help is complete, and loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from workplace import Run

from bnaudit.cli.main import app

# Newer versions of typer import pydantic themselves; of ours, `config` does.
HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "numpy", "scipy", "bnaudit.config")

VERBS = (
    *("inspect", "measure", "recalibrate", "restore", "report", "explain"),
    *("gate", "compare", "init"),
)

AFTER_RUNNING = """
import json, sys
from bnaudit.cli.main import run
for args in json.loads({commands!r}):
    sys.argv = ["bnaudit", *args]
    print(args)
    try:
        run()
    except SystemExit as ended:
        loaded = [name for name in json.loads({heavy!r}) if name in sys.modules]
        print(json.dumps([args, ended.code, loaded]), file=sys.stderr)
"""


def test_help_imports_nothing_heavy() -> None:
    """All in one process: what one of them loaded would still be there after the next."""
    commands = [["--help"], *([verb, "--help"] for verb in VERBS), ["--version"]]
    code = AFTER_RUNNING.format(commands=json.dumps(commands), heavy=json.dumps(HEAVY))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in ran.stderr.splitlines()] == [[c, 0, []] for c in commands]
    assert ran.stdout.count("Usage: bnaudit") == len(commands) - 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_has_help_and_is_shown(bnaudit: Run, verb: str) -> None:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    ran = bnaudit(verb, "--help")
    assert ran.code == 0
    assert len(command.params) > 2
    for parameter in command.params:
        assert parameter.help, parameter.name
        shown = [parameter.metavar or parameter.name]
        names = parameter.opts if parameter.param_type_name == "option" else shown
        for name in names:
            assert name in ran.out


def test_help_of_measure_shows_examples(bnaudit: Run) -> None:
    said = " ".join(bnaudit("measure", "--help").out.split())
    assert "Examples:" in said
    assert (
        "bnaudit measure sample_models/small_batch.pt --config sample_models/bnaudit.toml" in said
    )
    assert said.count("bnaudit measure") >= 4


def test_help_of_bnaudit_lists_the_verbs_and_an_example(bnaudit: Run) -> None:
    said = " ".join(bnaudit("--help").out.split())
    assert "measure Measure every BatchNorm layer of a checkpoint on data." in said
    assert "recalibrate Recompute a checkpoint's BatchNorm statistics" in said
    assert "restore Undo a recalibration" in said
    assert "report Show a saved Audit again" in said
    assert "bnaudit measure ckpt.pth --model torchvision:resnet50" in said


def test_help_fits_into_80_columns(bnaudit: Run) -> None:
    for args in ((), *((verb,) for verb in VERBS)):
        assert max(map(len, bnaudit(*args, "--help").out.splitlines())) <= 80
