"""Symbolic links where a result is to be written: the link is replaced, its target never."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Runs = Callable[..., str]

WRITES: dict[str, tuple[list[str], str]] = {
    "report": (["report", "good", "-o", "out", "--all"], "out/audit.json"),
    "gate into a folder": (["gate", "good", "-o", "out"], "out/gate.json"),
    "gate into a report": (["gate", "good", "--report", "junit=out/gate.xml"], "out/gate.xml"),
    "a baseline": (
        ["gate", "good", "--baseline", "out/main.json", "--write-baseline"],
        "out/main.json",
    ),
}


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take long, and `report` has no option against them."""
    monkeypatch.setattr("bnaudit.report.files._write_plots", lambda audit, folder: [])


@pytest.fixture
def good(folder: Path, measured: Path) -> Path:
    """A good Audit, an empty folder `out` and a file that nobody may write to."""
    shutil.copytree(measured, folder / "good")
    (folder / "out").mkdir()
    (folder / "victim").write_text("as it was")
    return folder / "good"


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("target", ["victim", "nothing", "self"])
def test_a_link_is_replaced_and_what_it_leads_to_is_not_touched(
    good: Path, runs: Runs, what: str, target: str
) -> None:
    args, place = WRITES[what]
    link = good.parent / place
    if target == "victim" and what == "a baseline":
        shutil.copy(good / "audit.json", good.parent / "victim")  # only Audits are replaced
    before = (good.parent / "victim").read_text()
    link.symlink_to(link if target == "self" else good.parent / target)
    runs(*args, codes=(0, 1))
    assert not link.is_symlink()
    assert link.stat().st_size > 100
    assert (good.parent / "victim").read_text() == before
    assert not (good.parent / "nothing").exists()


def test_a_folder_may_be_a_link(good: Path, runs: Runs) -> None:
    (good.parent / "linked").symlink_to("out")
    runs("report", "good", "-o", "linked")
    assert (good.parent / "linked").is_symlink()
    assert (good.parent / "out" / "audit.json").is_file()


def test_an_audit_may_be_read_through_links(good: Path, runs: Runs) -> None:
    (good.parent / "latest").symlink_to("good")
    (good.parent / "main.json").symlink_to("latest/audit.json")
    runs("report", "latest")
    runs("gate", "latest", "--baseline", "main.json")
