"""The GitHub action: its file, and its scripts run by bash with what a user may give as inputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from bnaudit.cli.main import app
from bnaudit.report.gate_files import FORMATS

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

NASTY = [
    "a b.pth",
    "it's.pth",
    'two "quotes".pth',
    "$(touch pwned).pth",
    "`touch pwned`.pth",
    "; touch pwned #.pth",
    "*.pth",
    "--help",
    "-x.pth",
    "ünïcode.pth",
    "back\\slash.pth",
    "%0A::error::x",
    "${{ github.token }}",
]


@dataclass(frozen=True)
class Ran:
    """The arguments that the command got, and what the step left behind."""

    args: list[str] | None
    code: int
    out: str
    outputs: str


def step(name: str) -> dict[str, Any]:
    return next(each for each in STEPS if each.get("name") == name)


def run(
    name: str, folder: Path, program: str, *, code: int = 0, said: str = "", **inputs: str
) -> Ran:
    """A step as the runner runs it, with `program` replaced by one that notes its arguments.

    `said`: what that one adds to the outputs of the step.
    """
    bin_ = folder / "bin"
    bin_.mkdir()
    noted, outputs = folder / "args.json", folder / "outputs"
    fake = bin_ / program
    fake.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"json.dump(sys.argv[1:], open({str(noted)!r}, 'w'))\n"
        f"open({str(outputs)!r}, 'a').write({said!r})\nsys.exit({code})\n"
    )
    fake.chmod(0o755)
    script = folder / "step.sh"
    script.write_text(step(name)["run"], encoding="utf-8")
    environment = dict.fromkeys(step(name)["env"], "") | inputs
    assert environment.keys() == step(name)["env"].keys()
    ran = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        cwd=folder,
        env={
            **environment,
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(outputs),
            "LANG": "C.UTF-8",
        },
        capture_output=True,
        encoding="utf-8",
    )
    return Ran(
        json.loads(noted.read_text()) if noted.exists() else None,
        ran.returncode,
        ran.stdout,
        outputs.read_text() if outputs.exists() else "",
    )


def gate(folder: Path, *, code: int = 0, said: str = "outcome=pass\n", **inputs: str) -> Ran:
    return run("Judge the checkpoint", folder, "bnaudit", code=code, said=said, **inputs)


def test_it_is_a_composite_action_whose_inputs_are_described() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for name, each in ACTION["inputs"].items():
        assert each["description"], name
        assert isinstance(each["default"], str), name
    assert all(each.get("shell") == "bash" for each in STEPS if "run" in each)


def test_no_expression_stands_in_a_script() -> None:
    for each in STEPS:
        assert "${{" not in each.get("run", "")


def test_every_input_is_used_and_every_expression_names_one() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert used == ACTION["inputs"].keys()
    assert ACTION["outputs"]["outcome"]["value"] == "${{ steps.gate.outputs.outcome }}"
    assert step("Judge the checkpoint")["id"] == "gate"


def test_nothing_but_a_format_for_github_is_asked_for_without_inputs(tmp_path: Path) -> None:
    ran = gate(tmp_path)
    assert (ran.code, ran.args) == (0, ["gate", "--format", "github"])


def test_every_input_becomes_the_option_of_its_name(tmp_path: Path) -> None:
    ran = gate(
        tmp_path,
        CHECKPOINT="ckpt.pth",
        CONFIG="ci.toml",
        BASELINE="main.json",
        BASE_CHECKPOINT="old.pth",
        FAIL_ON="error",
        REPORT="junit=gate.xml\nmarkdown=a b.md\n",
        ARGS="--samples=all\n--data-arg\nsplit=test\n\n",
    )
    assert ran.args == [
        *("gate", "--format", "github", "--config", "ci.toml", "--baseline", "main.json"),
        *("--base-checkpoint", "old.pth", "--fail-on", "error"),
        *("--report", "junit=gate.xml", "--report", "markdown=a b.md"),
        *("--samples=all", "--data-arg", "split=test", "--", "ckpt.pth"),
    ]


def test_bnaudit_gate_has_the_options_that_the_action_gives() -> None:
    command = get_command(app).commands["gate"]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    script = step("Judge the checkpoint")["run"]
    assert set(re.findall(r"(?<=[ (])--[a-z-]+", script)) <= known
    said = ACTION["inputs"]["report"]["description"]
    assert all(kind in said for kind in FORMATS)
    assert "--max-layer-esm" in known


VARIABLES = ("CHECKPOINT", "CONFIG", "BASELINE", "BASE_CHECKPOINT", "FAIL_ON", "REPORT", "ARGS")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        # Every value once, each in the next variable; the other pairs are slow.
        pytest.param(variable, value, marks=[pytest.mark.slow] * (number % len(VARIABLES) != place))
        for number, value in enumerate(NASTY)
        for place, variable in enumerate(VARIABLES)
    ],
)
def test_inputs_come_through_as_they_are_and_run_nothing(
    tmp_path: Path, variable: str, value: str
) -> None:
    ran = gate(tmp_path, **{variable: value})
    assert ran.code == 0
    assert ran.args is not None
    assert value in ran.args
    assert len(ran.args) == (4 if variable == "ARGS" else 5)
    assert not (tmp_path / "pwned").exists()
    assert ran.outputs == "outcome=pass\n"


def test_a_checkpoint_that_looks_like_an_option_is_none(tmp_path: Path) -> None:
    assert gate(tmp_path, CHECKPOINT="--trust-pickle").args == [
        *("gate", "--format", "github", "--", "--trust-pickle")
    ]


@pytest.mark.parametrize(
    ("code", "outcome"), [(0, "pass"), (1, "fail"), (0, "inconclusive"), (1, "inconclusive")]
)
def test_the_exit_code_and_the_outcome_are_those_of_the_command(
    tmp_path: Path, code: int, outcome: str
) -> None:
    ran = gate(tmp_path, code=code, said=f"outcome={outcome}\n", CHECKPOINT="a.pth")
    assert ran.code == code
    assert ran.outputs == f"outcome={outcome}\n"
    assert "::error" not in ran.out


@pytest.mark.parametrize("code", [1, 2, 3, 130])
def test_where_nothing_was_judged_the_outcome_is_an_error(tmp_path: Path, code: int) -> None:
    ran = gate(tmp_path, code=code, said="", CHECKPOINT="a.pth")
    assert ran.code == code
    assert ran.outputs == "outcome=error\n"
    assert f"::error title=bnaudit::Nothing was judged (exit code {code})" in ran.out


def test_what_failed_after_the_verdict_is_an_error_too(tmp_path: Path) -> None:
    ran = gate(tmp_path, code=2, said="outcome=pass\n")
    assert (ran.code, ran.outputs.splitlines()[-1]) == (2, "outcome=error")


@pytest.mark.parametrize("samples", ["all", "3"])
def test_the_command_itself_says_whether_it_passed_or_had_too_few_data(
    tmp_path: Path, samples: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_models = ROOT / "sample_models"
    (tmp_path / "bnaudit.toml").write_text(
        f'model = "{(sample_models / "digits.py").as_posix()}:model"\n'
        f'data = "npz:{(sample_models / "digits.npz").as_posix()}"\n'
        f'transform = "{(sample_models / "digits.py").as_posix()}:transform"\n'
        'data_arg = { split = "test" }\nattribute = "none"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_OUTPUT", "outputs")
    arguments = ["gate", str(sample_models / "healthy.pt"), "--samples", samples]
    ran = CliRunner().invoke(app, [*arguments, "--format", "github"])
    outcome = "pass" if ran.exit_code == 0 else "inconclusive"
    assert Path("outputs").read_text() == f"outcome={outcome}\n"
    assert (outcome == "inconclusive") == (samples == "3")
    CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert len(Path("outputs").read_text().splitlines()) == 1


def test_lines_that_end_as_on_windows_are_lines(tmp_path: Path) -> None:
    ran = gate(tmp_path, REPORT="junit=a.xml\r\njson=b.json\r\n", ARGS="--samples=all\r\n")
    assert ran.args is not None
    assert ran.args[3:] == ["--report", "junit=a.xml", "--report", "json=b.json", "--samples=all"]


def test_pip_installs_the_action_s_own_version_and_the_packages_named(tmp_path: Path) -> None:
    ran = run(
        "Install bnaudit",
        tmp_path,
        "python",
        ACTION_PATH="/home/a runner/action",
        PACKAGES="timm\n--extra-index-url=https://example.org/simple\n$(touch pwned)",
    )
    assert ran.args == [
        *("-m", "pip", "install", "--quiet", "/home/a runner/action", "timm"),
        *("--extra-index-url=https://example.org/simple", "$(touch pwned)"),
    ]
    assert not (tmp_path / "pwned").exists()


def test_python_is_set_up_before_anything_is_installed() -> None:
    assert STEPS[0]["uses"].startswith("actions/setup-python@")
    assert STEPS[0]["if"] == "inputs.python-version != ''"
    assert step("Install bnaudit")["if"] == "inputs.install == 'true'"
