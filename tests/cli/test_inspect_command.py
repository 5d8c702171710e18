"""`bnaudit inspect`: instant, without torch, and as strict about its options as its siblings."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from workplace import SAMPLES, Run, contents

RUN = """
import json, sys
from bnaudit.cli.main import run
try:
    run()
except SystemExit as ended:
    heavy = ("torch", "torchvision", "safetensors", "scipy", "pandas", "matplotlib")
    loaded = [name for name in heavy if name in sys.modules]
    print(json.dumps([ended.code, loaded]), file=sys.stderr)
"""


def in_a_process(*args: str | Path) -> tuple[str, list[object]]:
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, args)], capture_output=True, text=True, check=True
    )
    return ran.stdout, json.loads(ran.stderr.splitlines()[-1])


@pytest.mark.parametrize("more", [(), ("--json",), ("--all", "-o", "out")], ids=" ".join)
def test_nothing_heavy_is_imported(folder: Path, more: tuple[str, ...]) -> None:
    out, (code, heavy) = in_a_process("inspect", "good.pt", *more)
    assert (code, heavy) == (0, [])
    assert "BN layers" in out or json.loads(out)["layers"]


def test_a_resnet_50_takes_less_than_two_seconds(tmp_path: Path) -> None:
    path = tmp_path / "resnet50.pth"
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), path)
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    out, _ = in_a_process("inspect", path)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "53, 26,560 channels" in out
    # The process's own time, start-up included: other work on the machine does not count.
    assert end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime < 2


def test_a_pickled_model_needs_no_trust_and_runs_nothing(
    bnaudit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Touches:
        def __reduce__(self) -> object:
            return exec, ("open('marker', 'w').close()",)

    torch.save({"model": nn.Sequential(nn.BatchNorm2d(3)), "x": Touches()}, "a.pt")
    ran = bnaudit("inspect", "a.pt")
    assert ran.code == 0
    assert "1 (BatchNorm2d), 3 channels" in ran.out
    assert not Path("marker").exists()


def test_the_json_document_alone_is_on_stdout(bnaudit: Run, folder: Path) -> None:
    ran = bnaudit("inspect", "good.pt", "--json")
    document = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert document["schema"] == 1
    assert [layer["name"] for layer in document["layers"]] == ["1"]
    assert {finding["code"] for finding in document["findings"]} >= {"BN004"}


def test_files_are_written_where_asked_and_nowhere_else(bnaudit: Run, folder: Path) -> None:
    before = contents(folder)
    assert bnaudit("inspect", "good.pt").code == 0
    assert contents(folder) == before
    ran = bnaudit("inspect", "good.pt", "-o", "out")
    assert "written to out: inspection.json" in ran.out
    after = contents(folder)
    assert after.keys() - before.keys() == {"out", "out/inspection.json"}
    assert json.loads((folder / "out" / "inspection.json").read_text())["file"]["path"] == "good.pt"
    assert after["good.pt"] == before["good.pt"]


def test_findings_follow_the_policy_that_is_given(bnaudit: Run, folder: Path) -> None:
    state = torch.load("good.pt")
    state["1.running_var"] = torch.tensor([5e-5, 1.0, 2.0, 3.0])
    torch.save(state, "low.pt")

    def codes(*options: str) -> set[str]:
        ran = bnaudit("inspect", "low.pt", "--json", *options)
        assert ran.code == 0
        return {finding["code"] for finding in json.loads(ran.out)["findings"]}

    assert "BN012" not in codes()
    assert "BN012" in codes("--threshold", "BN012.multiple_of_eps=10")
    assert "BN012" in codes("--eps", "1e-4")
    assert codes("--eps", "1e-4", "--select", "BN012") == {"BN012"}
    assert "BN012" not in codes("--eps", "1e-4", "--ignore", "BN01")
    Path("bnaudit.toml").write_text("eps = 1e-4\nselect = ['BN012']\n[severity]\nBN012 = 'error'\n")
    ran = bnaudit("inspect", "low.pt")
    assert "using settings from bnaudit.toml" in ran.err
    assert "Findings: 1 error" in ran.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no checkpoint: name the file to inspect"),
        (("hole.pt",), "hole.pt: no such file"),
        (("data.npz",), "a NumPy archive"),
        (("net.py",), "a text file, not a checkpoint"),
        (("images",), "a folder, not a file"),
        (("good.pt", "--checkpoint-key", "ema"), "no state dict at 'ema'"),
        (("good.pt", "--threshold", "BN999.a=1"), "BN999: no finding has that code or name"),
        (("good.pt", "--threshold", "BN012.a=1"), "threshold BN012.a"),
        (("good.pt", "--eps", "-1"), "--eps"),
        (("good.pt", "--eps", "x"), "--eps"),
        (("good.pt", "--select", "BN9"), "no finding has that code or name"),
        (("good.pt", "-o", "net.py"), "--output net.py"),
        (("good.pt", "--trust-pickle"), "--trust-pickle"),
    ],
    ids=" ".join,
)
def test_a_wrong_request_is_answered_in_one_line(
    bnaudit: Run, folder: Path, args: tuple[str, ...], said: str
) -> None:
    ran = bnaudit("inspect", *args)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
    assert ran.out == ""


def test_a_checkpoint_without_batch_norm_is_fine(bnaudit: Run, folder: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), "linear.pt")
    ran = bnaudit("inspect", "linear.pt")
    assert ran.code == 0
    assert "no BatchNorm layers with running statistics in it" in " ".join(ran.out.split())


@pytest.mark.parametrize("name", ["healthy", "small_batch", "lagging_ema", "averaged"])
def test_the_sample_models_can_be_inspected(bnaudit: Run, folder: Path, name: str) -> None:
    ran = bnaudit("inspect", SAMPLES / f"{name}.pt", "--json")
    assert ran.code == 0
    assert len(json.loads(ran.out)["layers"]) == 9


def test_help_teaches_by_examples(bnaudit: Run) -> None:
    said = " ".join(bnaudit("inspect", "--help").out.split())
    assert said.count("bnaudit inspect") >= 4
    assert "bnaudit inspect ckpt.pth" in " ".join(bnaudit("--help").out.split())
