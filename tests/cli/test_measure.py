"""What `bnaudit measure` prints and writes when all is well, and when it is interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from untimed import untimed
from workplace import SAMPLES, Run, contents, network

from bnaudit.findings.policy import Policy
from bnaudit.report.terminal import BARS
from bnaudit.results import Audit, ChannelTable

PLOTS = (
    "shift_by_depth",
    "own_and_inherited_by_depth",
    "channels_by_depth",
    "worst_layers",
    "discrepancy_by_depth",
)
RESULTS = {"audit.json", "layers.csv", "channels.npz"}
MEASURE = ("measure", "good.pt", "--model", "net.py:model", "--data", "npz:data.npz")
FAST = (*MEASURE, "--no-plots")


@dataclass(frozen=True)
class Process:
    """A finished `python -m bnaudit`, and the folder it ran in."""

    here: Path
    code: int
    out: str
    err: str

    @property
    def results(self) -> Path:
        return self.here / "bnaudit-results" / "small_batch"


def python_m_bnaudit(here: Path, *args: str) -> Process:
    ran = subprocess.run(
        [sys.executable, "-m", "bnaudit", *args],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(SAMPLES.parent), "COLUMNS": "80"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Process(here, ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def small_batch(tmp_path_factory: pytest.TempPathFactory) -> Process:
    """The command that the help gives as its first example, as a user runs it."""
    here = tmp_path_factory.mktemp("demo")
    checkpoint, config = SAMPLES / "small_batch.pt", SAMPLES / "bnaudit.toml"
    return python_m_bnaudit(here, "measure", str(checkpoint), "--config", str(config))


def audit_at(folder: Path) -> Audit:
    return Audit.from_json((folder / "audit.json").read_text())


def rows(out: str) -> list[list[str]]:
    """The layer table of an output, cell by cell, without its header."""
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["layer", "ch"])
    table = []
    for line in lines[first + 1 :]:
        if not line.strip():
            break
        table.append(line.split())
    return table


# The first example


def test_the_first_example_succeeds_with_nothing_but_progress_on_stderr(
    small_batch: Process,
) -> None:
    assert small_batch.code == 0
    bars = ("measuring: ", "own and inherited shift: ", "how few layers matter: ")
    assert all(line.startswith(bars) for line in small_batch.err.splitlines())


def test_the_output_goes_from_what_was_loaded_to_the_files(small_batch: Process) -> None:
    order = [
        "digits.py:model",
        "9 (9 BatchNorm2d)",
        "small_batch.pt (sha256",
        "497 of 497",
        "digits.py:transform",
        "device",
        "Shifted: ",
        "layer ",
        "blocks.3.bn2",
        "ESM: ",
        "network  ",
        "deployed (estimated statistics)",
        "mini-batch statistics at 32",
        "top-1 agreement",
        "written to bnaudit-results/small_batch: audit.json",
    ]
    at = 0
    for words in order:
        found = small_batch.out.find(words, at)
        assert found >= 0, f"{words!r} does not come after what is ahead of it"
        at = found


def test_the_table_has_every_layer_in_call_order_with_the_figures_of_the_audit(
    small_batch: Process,
) -> None:
    audit = audit_at(small_batch.results)
    table = rows(small_batch.out)
    assert [row[0] for row in table] == [layer.name for layer in audit.audited]
    assert len(table) == 9
    for row, layer in zip(table, audit.audited, strict=True):
        assert layer.total_shift is not None
        assert float(row[2]) == pytest.approx(layer.total_shift.value, abs=6e-3, rel=6e-3)


def test_the_results_are_the_documents_and_five_plots_in_two_formats(small_batch: Process) -> None:
    plots = {f"{name}.{kind}" for name in PLOTS for kind in ("png", "svg")}
    assert {path.name for path in small_batch.results.iterdir()} == RESULTS | plots
    assert set(contents(small_batch.here)) == {
        "bnaudit-results",
        "bnaudit-results/small_batch",
        *(f"bnaudit-results/small_batch/{name}" for name in RESULTS | plots),
    }


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_picture_of_something(small_batch: Process, name: str) -> None:
    with Image.open(small_batch.results / f"{name}.png") as image:
        assert min(image.size) > 500
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        pixels = image.width * image.height
    blank = next(count for count, colour in colours if colour == (255, 255, 255))
    assert 0.01 < 1 - blank / pixels < 0.6
    assert len(colours) > 50
    svg = ElementTree.parse(small_batch.results / f"{name}.svg").getroot()
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}path"))) > 10


def test_the_csv_has_a_row_a_layer(small_batch: Process) -> None:
    lines = (small_batch.results / "layers.csv").read_text().splitlines()
    assert lines[0].startswith("name,kind,status,channels")
    assert [line.split(",")[0] for line in lines[1:]] == [
        layer.name for layer in audit_at(small_batch.results).audited
    ]


def test_the_channels_are_those_of_the_layers(small_batch: Process) -> None:
    channels = ChannelTable.load(small_batch.results / "channels.npz")
    for layer in audit_at(small_batch.results).audited:
        arrays = channels.layer(layer.name)
        assert {len(array) for array in arrays.values()} == {layer.channels}
        assert np.sqrt(np.mean(arrays["shift"] ** 2)) == pytest.approx(layer.total_shift.plain)  # type: ignore[union-attr]


def test_no_line_is_longer_than_the_terminal(small_batch: Process) -> None:
    commands = [line for line in small_batch.out.splitlines() if line.startswith("    bnaudit ")]
    others = [line for line in small_batch.out.splitlines() if line not in commands]
    assert max(map(len, others)) <= 80
    assert len(commands) == 1  # to be copied, so it is not broken into lines


def test_report_prints_what_measure_printed(small_batch: Process, bnaudit: Run) -> None:
    ran = bnaudit("report", small_batch.results)
    printed = small_batch.out.partition("\nwritten to")[0]
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.rstrip("\n") == printed.rstrip("\n")
    assert bnaudit("report", small_batch.results / "audit.json").out == ran.out


def test_report_writes_the_same_files_again(
    small_batch: Process, bnaudit: Run, tmp_path: Path
) -> None:
    ran = bnaudit("report", small_batch.results, "-o", tmp_path / "again")
    assert ran.code == 0
    assert "audit.json" in ran.out.partition("written to")[2]
    assert contents(tmp_path / "again") == contents(small_batch.results)


def test_a_terminal_without_our_characters_gets_others(
    small_batch: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # Windows, where stdout is not the console
    ran = python_m_bnaudit(small_batch.here, "report", "bnaudit-results/small_batch")
    assert ran.code == 0, ran.err


# Tables of many layers


def wide(name: str) -> str:
    return f"""\
import torch
from torch import nn
def model():
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(1024) for _ in range(3)]
    norms[1].running_mean.fill_(-123456.0)
    norms[2].running_var.fill_(1e-9)
    stages = nn.ModuleDict({{"{name}_%d" % i: norm for i, norm in enumerate(norms)}})
    return Net(stages)
class Net(nn.Module):
    def __init__(self, stages):
        super().__init__()
        self.widen, self.stages = nn.Conv2d(3, 1024, 1), stages
    def forward(self, x):
        x = self.widen(x)
        return sum(norm(x) for norm in self.stages.values()).mean((2, 3))
"""


@pytest.mark.parametrize("columns", [80, 100])
def test_long_names_and_large_figures_fit_the_terminal_uncut(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    (folder / "wide.py").write_text(wide("a_block_of_the_second_stage_with_a_long_name"))
    ran = bnaudit("measure", "--model", "wide.py:model", "--data", "npz:data.npz", "--no-plots")
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= columns
    assert "…" not in ran.out
    assert "1.2e5" in ran.out or "1e5" in ran.out


def test_a_long_model_shows_its_worst_layers_and_a_strip_of_all(folder: Path, bnaudit: Run) -> None:
    ran = bnaudit(
        *("measure", "--model", "net.py:model", "--model-arg", "depth=30"),
        *("--data", "npz:data.npz", "--no-plots", "-o", "r"),
    )
    assert ran.code == 0
    assert "12 layers of largest output shift, of 30 (--all shows all)" in ran.out
    audited = audit_at(folder / "r").audited
    by_shift = sorted(audited, key=lambda layer: layer.output_shift.value)  # type: ignore[union-attr]
    worst = {layer.name for layer in by_shift[-12:]}
    assert [row[0] for row in rows(ran.out)] == [
        layer.name for layer in audited if layer.name in worst
    ]
    assert sum(character in BARS for character in ran.out) == 30 + 1  # and one in the caption
    assert max(map(len, ran.out.splitlines())) <= 80

    every = bnaudit("report", "r", "--all")
    assert [row[0] for row in rows(every.out)] == [layer.name for layer in audited]
    assert "Output shift by depth" not in every.out
    assert bnaudit("report", "r").out.strip() == ran.out.partition("\nwritten to")[0].strip()


def test_all_shows_every_layer_while_measuring(folder: Path, bnaudit: Run) -> None:
    ran = bnaudit(
        *("measure", "--model", "net.py:model", "--model-arg", "depth=30"),
        *("--data", "npz:data.npz", "--attribute", "none", "--no-plots", "--all"),
    )
    assert len(rows(ran.out)) == 30


# Streams and files


def test_json_is_one_document_on_stdout_and_no_file(folder: Path, bnaudit: Run) -> None:
    before = contents(folder)
    ran = bnaudit(*MEASURE, "--json")
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert document["schema"] == 1
    assert document["layers"][0]["name"] == "1"
    assert contents(folder) == before


def test_json_with_output_writes_the_same_document(folder: Path, bnaudit: Run) -> None:
    ran = bnaudit(*FAST, "--json", "-o", "r")
    assert (ran.code, ran.err) == (0, "")
    assert (folder / "r" / "audit.json").read_text() == ran.out
    assert {path.name for path in (folder / "r").iterdir()} == RESULTS


def test_the_results_go_where_output_says(folder: Path, bnaudit: Run) -> None:
    ran = bnaudit(*FAST, "-o", "a/b")
    assert ran.code == 0
    assert "written to a/b: audit.json, layers.csv, channels.npz" in ran.out
    assert {path.name for path in (folder / "a" / "b").iterdir()} == RESULTS
    assert not (folder / "bnaudit-results").exists()


def test_progress_goes_to_stderr_and_tables_to_stdout(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnaudit.cli.screen.PLAIN_EVERY", 0.0)
    ran = bnaudit(*FAST, "--batch-size", "10")
    said = [line.partition(",")[0] for line in ran.err.splitlines()]
    assert said[:4] == [f"measuring: {done} of 40 samples" for done in (10, 20, 30, 40)]
    assert all(line.startswith(("own and inherited", "how few")) for line in said[4:])
    assert "measuring" not in ran.out


def test_a_second_run_replaces_the_results(folder: Path, bnaudit: Run) -> None:
    first = bnaudit(*FAST, "--seed", "1")
    after_first = contents(folder / "bnaudit-results" / "good")
    second = bnaudit(*FAST, "--seed", "2", "--samples", "20")
    after_second = contents(folder / "bnaudit-results" / "good")
    assert (first.code, second.code) == (0, 0)
    assert after_first.keys() == after_second.keys() == RESULTS
    assert audit_at(folder / "bnaudit-results" / "good").data.samples == 20  # type: ignore[union-attr]
    assert all(after_first[name] != after_second[name] for name in RESULTS)
    first_audit = Audit.from_json((after_first["audit.json"] or b"").decode())
    assert bnaudit(*FAST, "--seed", "1").code == 0
    again = contents(folder / "bnaudit-results" / "good")
    assert untimed(audit_at(folder / "bnaudit-results" / "good")) == untimed(first_audit)
    assert all(again[name] == after_first[name] for name in RESULTS - {"audit.json"})


def test_nothing_of_an_earlier_run_stays_that_does_not_fit(folder: Path, bnaudit: Run) -> None:
    bnaudit(*MEASURE, "-o", "r")
    bnaudit("measure", "--model", "net.py:no_norm", "--data", "npz:data.npz", "-o", "r")
    assert {path.name for path in (folder / "r").iterdir()} == {"audit.json", "layers.csv"}


def test_the_checkpoint_and_the_data_stay_as_they_are(folder: Path, bnaudit: Run) -> None:
    before = contents(folder)
    assert bnaudit(*FAST).code == 0
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("bnaudit-results") for name in after.keys() - before.keys())


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)
    monkeypatch.setattr(os, "access", lambda *_: False)
    ran = bnaudit("measure", "no.pt", "--model", "no.py:no", "--data", "npz:no", "-o", "r")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: --output r: . is not writable; give another folder\n"
    assert contents(folder) == before


def test_a_full_disk_is_told_and_leaves_no_temporary_file(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ChannelTable, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ChannelTable, "save", full)
    ran = bnaudit(*FAST, "-o", "r")
    assert ran.code == 2
    assert ran.err.startswith("error: --output r: cannot be written: ")
    assert "No space left on device" in ran.err
    assert {path.name for path in (folder / "r").iterdir()} <= RESULTS - {"channels.npz"}


# What the data and the model may lack


def test_a_model_without_batchnorm_is_told_so(folder: Path, bnaudit: Run) -> None:
    ran = bnaudit("measure", "--model", "net.py:no_norm", "--data", "npz:data.npz")
    assert (ran.code, ran.err) == (0, "")
    assert "BN layers  none" in ran.out
    assert "Nothing to audit: the model has no BatchNorm layer" in ran.out
    results = folder / "bnaudit-results" / "model"
    assert audit_at(results).verdict.level == "nothing-to-audit"  # type: ignore[union-attr]
    assert bnaudit("report", results).out.strip() == ran.out.partition("\nwritten")[0].strip()


def test_without_labels_the_classes_are_compared_and_no_accuracy_is_shown(
    folder: Path, bnaudit: Run
) -> None:
    np.savez(folder / "data.npz", x=np.load("data.npz")["x"])
    ran = bnaudit(*FAST)
    assert ran.code == 0
    assert "without labels" in ran.out
    assert "top-1 agreement" in ran.out
    assert "accuracy" not in ran.out
    assert "loss" not in ran.out


def test_without_a_checkpoint_the_weights_are_said_to_be_the_factorys(
    folder: Path, bnaudit: Run
) -> None:
    ran = bnaudit("measure", "--model", "net.py:model", "--data", "npz:data.npz", "--no-plots")
    assert ran.code == 0
    assert "no checkpoint: the weights are the factory's own" in ran.out


def test_what_was_chosen_in_the_checkpoint_is_printed(folder: Path, bnaudit: Run) -> None:
    state = {f"module.{name}": value for name, value in network().state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state, "state_dict_ema": state}, folder / "good.pt")
    out = bnaudit(*FAST).out
    assert "state dict found under 'state_dict'" in out
    assert "other state dicts in the file: state_dict_ema" in out
    assert "prefix 'module.' stripped from its keys" in out


def test_skip_bad_leaves_an_unreadable_image_out_and_lists_it(folder: Path, bnaudit: Run) -> None:
    (folder / "images" / "cat" / "broken.png").write_bytes(b"not an image")
    ran = bnaudit(
        *("measure", "good.pt", "--model", "net.py:model", "--data", "imagefolder:images"),
        *("--no-plots", "--skip-bad"),
    )
    assert ran.code == 0, ran.err
    assert "1 samples left out (--skip-bad)" in ran.out or "1 sample left out" in ran.out
    assert "images/cat/broken.png" in "".join(ran.out.split())
    data = audit_at(folder / "bnaudit-results" / "good").data
    assert data is not None
    assert data.samples == 10
    assert len(data.skipped) == 1
    assert data.skipped[0].startswith("images/cat/broken.png: ")


def test_allow_mismatch_goes_on_and_says_what_kept_its_initial_value(
    folder: Path, bnaudit: Run
) -> None:
    torch.save(network(classes=7).state_dict(), folder / "good.pt")
    ran = bnaudit(*FAST, "--allow-mismatch")
    assert ran.code == 0, ran.err
    assert "wrong shape, kept at their initial value: " in ran.out
    assert "6.weight" in ran.out


def test_trust_pickle_measures_a_pickled_model(folder: Path, bnaudit: Run) -> None:
    torch.save(network(), folder / "whole.pt")
    ran = bnaudit("measure", "whole.pt", "--data", "npz:data.npz", "--no-plots", "--trust-pickle")
    assert ran.code == 0, ran.err
    assert "pickled Sequential" in ran.out


def test_outputs_that_are_not_finite_are_not_called_equal(folder: Path, bnaudit: Run) -> None:
    (folder / "inf.py").write_text(INFINITE_OUTPUT)
    ran = bnaudit("measure", "--model", "inf.py:model", "--data", "npz:data.npz", "--json")
    assert json.loads(ran.out)["network"]["kl"] is None


def test_a_loss_that_is_not_finite_can_be_reported(folder: Path, bnaudit: Run) -> None:
    (folder / "inf.py").write_text(INFINITE_OUTPUT)
    args = ("--model", "inf.py:model", "--data", "npz:data.npz", "--no-plots", "-o", "r")
    assert bnaudit("measure", *args).code == 0
    ran = bnaudit("report", "r")
    assert ran.code == 0, ran.err


def test_a_comparison_that_gives_nan_can_be_reported(folder: Path, bnaudit: Run) -> None:
    (folder / "compare.py").write_text("def nan(a, b):\n    return float('nan')\n")
    assert bnaudit(*FAST, "--compare", "compare.py:nan", "--task", "other", "-o", "r").code == 0
    ran = bnaudit("report", "r")
    assert ran.code == 0, ran.err


INFINITE_OUTPUT = """\
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
    def forward(self, x):
        scores = self.bn(x).mean((2, 3))
        scores[:, 0] = float("inf")
        return scores
def model():
    return Net()
"""


@pytest.mark.parametrize("name", ["a[b]", "a[/b]"])
def test_brackets_in_a_path_are_shown_as_they_are(folder: Path, bnaudit: Run, name: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "net.py").write_text((folder / "net.py").read_text())
    model = f"{name}/net.py:model"
    ran = bnaudit("measure", "good.pt", "--model", model, "--data", "npz:data.npz", "--no-plots")
    assert ran.code == 0, ran.err
    assert model in ran.out


# Interruptions and bugs

INTERRUPTED = """\
def forward(model, batch):
    raise KeyboardInterrupt
"""


def test_ctrl_c_ends_with_130_and_writes_nothing(folder: Path, bnaudit: Run) -> None:
    (folder / "forward.py").write_text(INTERRUPTED)
    before = contents(folder)
    ran = bnaudit(*MEASURE, "--forward", "forward.py:forward")
    assert (ran.code, ran.out) == (130, "")
    assert "Traceback" not in ran.err
    assert contents(folder) == before


def test_ctrl_c_is_told(folder: Path, bnaudit: Run) -> None:
    (folder / "forward.py").write_text(INTERRUPTED)
    assert bnaudit(*MEASURE, "--forward", "forward.py:forward").err == "interrupted\n"


def test_ctrl_c_while_writing_leaves_no_half_written_file(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: ChannelTable, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(ChannelTable, "save", interrupted)
    assert bnaudit(*FAST, "-o", "r").code == 130
    assert {path.name for path in (folder / "r").iterdir()} <= RESULTS - {"channels.npz"}


def test_a_bug_ends_with_3_its_traceback_and_where_to_report_it(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(audit: Audit, policy: Policy) -> None:
        raise RuntimeError("the impossible")

    monkeypatch.setattr("bnaudit.verbs.measurement.judge", broken)
    before = contents(folder)
    ran = bnaudit(*MEASURE)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("Traceback (most recent call last):")
    assert "RuntimeError: the impossible" in ran.err
    assert "This is a bug in bnaudit" in ran.err
    assert "issue tracker" in ran.err
    assert contents(folder) == before


def test_a_wrong_request_exits_with_2_from_a_shell(tmp_path: Path) -> None:
    ran = python_m_bnaudit(tmp_path, "inspect", "none.pt")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: none.pt: no such file")
    assert not list(tmp_path.iterdir())
