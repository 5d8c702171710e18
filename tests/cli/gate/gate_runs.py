"""The sample models to run the gate on, and what its runs say."""

from __future__ import annotations

from typing import Any

import typer
from workplace import Ran

from bnaudit.cli.main import app
from bnaudit.results import Gate

MODELS = ("healthy", "averaged", "small_batch", "lagging_ema")

CONFIG = """\
model = "digits.py:model"
data = "npz:digits.npz"
data_arg = { split = "test" }
transform = "digits.py:transform"
samples = "all"
attribute = "none"
plots = false
"""

HEALTHY, WRONG = "healthy.pt", "small_batch.pt"


def verdict(ran: Ran) -> Gate:
    """What `--format json` printed, and nothing else."""
    assert ran.code in (0, 1), ran.err
    return Gate.from_json(ran.out)


def one_line(ran: Ran) -> str:
    """The only thing that is said of a bad input, but for the file with the settings."""
    assert ran.code == 2
    assert ran.out == ""
    lines = [line for line in ran.err.splitlines() if not line.startswith("using settings from")]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("error: ")
    return lines[0]


def gate_command() -> Any:
    return typer.main.get_command(app).commands["gate"]  # type: ignore[attr-defined]
