"""The hook that pre-commit reads from this repository: which files it takes, and what it runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from typer.main import get_command

from bnaudit.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
(HOOK,) = HOOKS


def test_it_is_a_hook_that_pre_commit_can_install() -> None:
    assert HOOK["id"] == "bnaudit-inspect"
    assert HOOK["language"] == "python"
    assert (ROOT / "pyproject.toml").exists()  # what pre-commit installs it from


def test_its_entry_is_a_command_with_options_that_exist() -> None:
    program, verb, *words = shlex.split(HOOK["entry"])
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    assert program == "bnaudit"
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize(
    "path",
    [
        "model.pt",
        "runs/3/best.pth",
        "resnet20-12fca82f.th",
        "last.ckpt",
        "best.pth.tar",
        "model.safetensors",
        "hub/pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "a folder/ünï.pt",
    ],
)
def test_checkpoints_are_its_files(path: str) -> None:
    assert re.search(HOOK["files"], path)


@pytest.mark.parametrize(
    "path",
    [
        "model.py",
        "requirements.txt",
        "data.bin",
        "firmware/boot.bin",
        "prompt",
        "images.tar",
        "script.pth.py",
        "tokenizer.json",
        "a.path",
    ],
)
def test_other_files_are_not(path: str) -> None:
    assert not re.search(HOOK["files"], path)


def test_a_commit_with_a_broken_checkpoint_fails_and_one_without_passes(tmp_path: Path) -> None:
    """pre-commit runs the entry with the names of the files after it."""
    state = nn.BatchNorm2d(3).state_dict()
    state["num_batches_tracked"] = torch.tensor(1000)
    state["running_mean"] = torch.tensor([0.1, 0.2, 0.3])
    torch.save({f"bn.{name}": value for name, value in state.items()}, tmp_path / "fine.pt")
    state["running_var"] = torch.tensor([1.0, float("nan"), 1.0])
    torch.save({f"bn.{name}": value for name, value in state.items()}, tmp_path / "broken.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "no norm.pt")

    def commit(*files: str) -> int:
        words = [sys.executable, "-m", *shlex.split(HOOK["entry"]), *files]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode

    assert commit("fine.pt", "no norm.pt") == 0
    assert commit("fine.pt", "broken.pt", "no norm.pt") == 1
