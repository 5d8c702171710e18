"""Nothing that a run writes replaces something else that it writes, or is left from another run."""

from __future__ import annotations

from pathlib import Path

import torch
from gate_runs import HEALTHY
from workplace import Run


def test_a_report_does_not_replace_what_the_output_folder_gets(bnaudit: Run, work: Path) -> None:
    for name in ("audit.json", "gate.json", "layers.csv"):
        ran = bnaudit("gate", HEALTHY, "-o", "out", "--report", f"markdown=out/{name}")
        assert ran.code == 2
        assert "--output out" in ran.err
    assert not (work / "out").exists()


def test_a_baseline_is_not_written_where_the_verdict_goes(bnaudit: Run, work: Path) -> None:
    ran = bnaudit("gate", HEALTHY, "-o", "out", "--write-baseline", "--baseline", "out/gate.json")
    assert ran.code == 2
    assert not (work / "out").exists()


def test_a_run_without_figures_leaves_none_of_an_earlier_one(bnaudit: Run, work: Path) -> None:
    assert bnaudit("gate", HEALTHY, "-o", "out", "--no-plots").code == 0
    assert (work / "out" / "audit.json").exists()
    state = torch.load(work / HEALTHY)
    state["bn.running_mean"].fill_(float("nan"))
    torch.save(state, work / "broken.pt")
    assert bnaudit("gate", "broken.pt", "-o", "out", "--no-plots").code == 1
    assert [path.name for path in (work / "out").iterdir()] == ["gate.json"]
