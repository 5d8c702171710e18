"""A file that lost a part of its statistics gets them back by recalibration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from workplace import Run

RUN = ("--model", "net.py:model", "--data", "npz:data.npz", "--force")


@pytest.mark.parametrize("lost", [("running_var",), ("running_mean", "running_var")])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_was_lost_is_in_the_copy_and_gone_again_after_a_restore(
    folder: Path, bnaudit: Run, lost: tuple[str, ...], prefix: str
) -> None:
    whole = {f"{prefix}{name}": value for name, value in torch.load("good.pt").items()}
    left = {k: v for k, v in whole.items() if k.rpartition(".")[2] not in lost}
    torch.save(left, "lost.pt")
    assert bnaudit("recalibrate", "lost.pt", *RUN).code == 2
    ran = bnaudit("recalibrate", "lost.pt", *RUN, "--allow-mismatch")
    assert ran.code == 0, ran.err
    written = torch.load("lost.recalibrated.pt")
    assert written.keys() == whole.keys()
    assert all(torch.equal(written[k], v) for k, v in left.items() if "running_" not in k)
    assert "BN006" not in bnaudit("inspect", "lost.recalibrated.pt").out
    measured = bnaudit("measure", "lost.recalibrated.pt", *RUN[:-1], "--no-plots")
    assert measured.code == 0, measured.err
    assert bnaudit("restore", "lost.recalibrated.pt", "-o", "again.pt").code == 0
    assert torch.load("again.pt").keys() == left.keys()
