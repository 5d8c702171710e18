"""`bnaudit sweep`: tables, files and exit codes of every kind, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from sweep_inputs import SAMPLES
from sweep_runs import Sweeping

from bnaudit.cli.main import app
from bnaudit.cli.sweep import sweep as sweep_app
from bnaudit.results.sweep import Kind, Sweep

TRAIN = ("--train-data", f"npz:{SAMPLES / 'digits.npz'}", "--train-data-arg", "split=train")
VERIFY = ("--verify", f"npz:{SAMPLES / 'digits.npz'}", "--verify-arg", "split=verify")

RUNS: dict[Kind, tuple[str, ...]] = {
    "batch-size": ("--values", "2,16", "--samples", "48", *TRAIN),
    "samples": ("--values", "8,40", "--draws", "2", "--samples", "40", *VERIFY),
    "prior": ("--values", "0,8", "--samples", "16", "--verify-samples", "40", "--no-plots"),
    "example-weight": ("--values", "0,0.1", "--samples", "60"),
    "momentum": ("--values", "0.5,0.1", "--samples", "64", "--train-batch-size", "8", "--no-plots"),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "samples")) for kind in RUNS]
)
def test_every_kind_prints_a_table_and_writes_its_files(
    kind: Kind, sweep: Sweeping, on_digits: list[str], tmp_path: Path
) -> None:
    ran = sweep(kind, SAMPLES / "small_batch.pt", *on_digits, *RUNS[kind])
    assert ran.code == 0, ran.err
    name = f"sweep_{kind.replace('-', '_')}"
    folder = tmp_path / "bnaudit-results" / "small_batch"
    result = Sweep.from_json((folder / f"{name}.json").read_text())
    assert result.kind == kind
    table = pd.read_csv(folder / f"{name}.csv")
    assert table.value.tolist() == [point.value for point in result.points]
    for point, accuracy in zip(result.points, table.accuracy, strict=True):
        assert point.scores.accuracy is not None
        assert point.scores.accuracy.value == pytest.approx(accuracy)
        assert f"{point.scores.accuracy.value:.1%}" in ran.out
    to_copy = "    bnaudit recalibrate"  # never broken into lines
    assert all(len(x) <= 80 for x in ran.out.splitlines() if not x.startswith(to_copy))
    said = " ".join(ran.out.split())
    for conclusion in result.conclusions:
        assert conclusion.sentence in said
    plots = {file.name for file in folder.glob("*.png")}
    expected = {f"{name}.png"} | ({f"{name}_layers.png"} if result.layers else set())
    assert plots == (set() if "--no-plots" in RUNS[kind] else expected)
    assert {file.stem for file in folder.glob("*.svg")} == {Path(p).stem for p in plots}
    assert all((folder / plot).stat().st_size > 10_000 for plot in plots)
    assert "error" not in ran.err


def test_json_is_the_whole_output_and_nothing_is_written(
    sweep: Sweeping, on_digits: list[str], tmp_path: Path
) -> None:
    ran = sweep(
        "example-weight", SAMPLES / "healthy.pt", *on_digits, *RUNS["example-weight"], "--json"
    )
    assert ran.code == 0
    result = Sweep.from_json(ran.out)
    assert result.request is not None
    assert result.request.checkpoint == str(SAMPLES / "healthy.pt")
    assert list(tmp_path.iterdir()) == []


def test_another_sweep_replaces_its_own_files_and_no_others(
    sweep: Sweeping, on_digits: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "sweep_example_weight_layers.png").write_text("of an earlier one")
    (folder / "sweep_prior.json").write_text("another's")
    args = (*on_digits, *RUNS["example-weight"], "-o", str(folder), "--no-plots")
    assert sweep("example-weight", SAMPLES / "healthy.pt", *args).code == 0
    assert {file.name for file in folder.iterdir()} == {
        "sweep_example_weight.json",
        "sweep_example_weight.csv",
        "sweep_prior.json",
    }


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("batch-size", "--values", "2,x"), "'x' is no number"),
    (("batch-size", "--values", "1"), "1 is no mini-batch size"),
    (("batch-size", "--values", "2,4096"), "give smaller ones, or more data"),
    (("samples", "--values", "9999"), "there are 248 to draw from"),
    (("samples", "--draws", "0"), "draws is 0: give a positive number"),
    (("prior", "--values", "-4"), "-4 is no strength of a prior"),
    (("example-weight", "--values", "0,2"), "2 is no weight of an example"),
    (("momentum", "--values", "0.1,0.1"), "0.1 stands there twice"),
    (("prior", "--verify", "nowhere:x"), "nowhere"),
    (("prior", *VERIFY, "--verify-split", "0.5"), "exclude each other"),
    (("prior", "--verify-arg", "split=test"), "is for --verify, which is missing"),
    (("samples", "--verify-split", "1.5"), "--verify-split"),
    (("momentum", "--threshold", "BN123.x=1"), "there is no such threshold"),
]


@pytest.mark.parametrize(("args", "says"), WRONG)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2(
    args: tuple[str, ...], says: str, sweep: Sweeping, on_digits: list[str]
) -> None:
    ran = sweep(args[0], SAMPLES / "healthy.pt", *on_digits, *args[1:])
    assert ran.code == 2
    last = ran.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_threshold_decides_about_a_finding(sweep: Sweeping, on_digits: list[str]) -> None:
    args = (SAMPLES / "lagging_ema.pt", *on_digits, "--values", "16,128", "--draws", "1", "--json")
    found = {
        usual: [
            finding["code"]
            for finding in json.loads(
                sweep("samples", *args, "--threshold", f"BN120.usual={usual}").out
            )["findings"]
        ]
        for usual in ("1000", "8")
    }
    assert found["1000"] == ["BN120"]
    assert found["8"] == []  # BN121 has a threshold of its own


def test_the_command_of_a_finding_verifies_on_the_same_held_out_data(
    sweep: Sweeping, on_digits: list[str]
) -> None:
    args = (SAMPLES / "lagging_ema.pt", *on_digits, "--values", "16,128", "--draws", "1", "--json")
    (finding,) = json.loads(sweep("samples", *args, *VERIFY).out)["findings"]
    assert finding["command"].startswith("bnaudit recalibrate ")
    assert f"--verify npz:{SAMPLES / 'digits.npz'} --verify-arg split=verify" in finding["command"]
    (finding,) = json.loads(sweep("samples", *args, "--verify-split", "0.4").out)["findings"]
    assert "--verify-split 0.4 --samples 128" in finding["command"]
    (finding,) = json.loads(sweep("samples", *args).out)["findings"]
    assert "--verify" not in finding["command"]


COMMANDS = typer.main.get_command(sweep_app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", RUNS)
def test_the_help_of_every_kind_is_complete(kind: Kind, sweep: Sweeping) -> None:
    ran = sweep(kind, "--help")
    assert ran.code == 0
    said = " ".join(ran.out.split())
    assert f"bnaudit sweep {kind} sample_models/" in said
    for parameter in COMMANDS[kind].params:
        assert parameter.help, parameter.name
        for name in parameter.opts if parameter.param_type_name == "option" else ():
            assert name in ran.out
    assert all(len(line) <= 80 for line in ran.out.splitlines() if "bnaudit sweep" not in line)


def test_the_sweeps_are_listed_and_their_help_loads_nothing_heavy(sweep: Sweeping) -> None:
    assert "sweep" in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    code = (
        "import sys, json\nfrom bnaudit.cli.main import run\ntry:\n    run()\nexcept SystemExit:\n"
        "    print(json.dumps([n for n in ('torch', 'numpy', 'bnaudit.config') if n in "
        "sys.modules]), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "sweep", "--help"], capture_output=True, text=True, check=True
    )
    assert json.loads(ran.stderr) == []
    for kind in RUNS:
        assert kind in ran.stdout
