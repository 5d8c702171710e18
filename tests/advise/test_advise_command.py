"""`bnaudit advise` on the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from advised import SAMPLES

from bnaudit.cli import main
from bnaudit.results.advice import Advice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of measuring one sample model, as a user gets them."""
    here = tmp_path_factory.mktemp("advise")
    for name in ("digits.py", "digits.npz", "bnaudit.toml", "lagging_ema.pt"):
        shutil.copy(SAMPLES / name, here / name)
    words = ["measure", "lagging_ema.pt", "--config", "bnaudit.toml", "-o", "out", "--no-plots"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(sys, "argv", ["bnaudit", *words])
        with pytest.raises(SystemExit) as ended:
            main.run()
    assert not ended.value.code
    return here / "out"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def ran(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["bnaudit", "advise", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        return (ended.value.code or 0, *capfd.readouterr())

    return ran


def test_the_remedies_are_printed_with_evidence_cost_and_command(run, folder):
    code, out, _ = run(folder)
    assert code == 0
    lines = out.splitlines()
    assert "1. Recalibrate the statistics (exact) (recalibrate)" in lines
    assert "[network.deployed_compared.samples" in out
    assert any(line.startswith("  cost: One forward pass") for line in lines)
    command = next(line for line in lines if "bnaudit recalibrate" in line and "--model" in line)
    assert command.strip().startswith("bnaudit recalibrate lagging_ema.pt --model digits.py:model")
    assert all(len(line) <= 80 for line in lines if line != command)


def test_json_is_the_advice_and_nothing_else(run, folder):
    code, out, err = run(folder / "audit.json", "--json")
    assert (code, err) == (0, "")
    advice = Advice.from_json(out)
    assert advice.remedies[0].name == "recalibrate"
    assert advice.source == str(folder / "audit.json")
    assert json.loads(out)["remedies"][0]["sentences"][0]["paths"]


def test_the_folder_and_the_file_give_the_same_advice(run, folder):
    _, of_file, _ = run(folder / "audit.json", "--json")
    _, of_folder, _ = run(folder, "--json")
    assert of_file.replace("/audit.json", "") == of_folder


def test_what_is_no_audit_is_told_in_one_line(run, folder, tmp_path):
    text = (folder / "audit.json").read_text()
    damaged = {
        "empty": "",
        "half": text[: len(text) // 2],
        "list": "[]",
        "other schema": text.replace('"schema": 1', '"schema": 99', 1),
        "negative": text.replace('"batch_size": 32', '"batch_size": -32', 1),
        "accuracy": json.dumps(
            json.loads(text) | {"network": json.loads(text)["network"] | {"agreement": 7}}
        ),
        "a text for a finding": json.dumps(json.loads(text) | {"findings": ["BN101"]}),
    }
    for name, content in damaged.items():
        path = tmp_path / "audit.json"
        path.write_text(content)
        code, out, err = run(path)
        assert code == 2, name
        assert out == "", name
        assert len(err.strip().splitlines()) == 1, (name, err)
        assert "audit.json" in err, name
    code, out, err = run(tmp_path / "missing.json")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1


def test_advice_needs_no_torch(folder):
    code = (
        "import sys; from bnaudit.verbs.advise import advise; advise(sys.argv[1]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == 0
