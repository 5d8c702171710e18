from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gate_runs import CONFIG, HEALTHY, MODELS, WRONG
from workplace import SAMPLES, Run


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample models, and Audits of two of them."""
    here = tmp_path_factory.mktemp("samples")
    for name in ("digits.py", "digits.npz", *(f"{name}.pt" for name in MODELS)):
        shutil.copy(SAMPLES / name, here / name)
    (here / "bnaudit.toml").write_text(CONFIG)
    return here


@pytest.fixture
def work(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the samples, with what a test has measured before."""
    here = tmp_path / "work"
    shutil.copytree(samples, here)
    monkeypatch.chdir(here)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    return here


@pytest.fixture
def audit(bnaudit: Run, samples: Path, work: Path) -> Path:
    """healthy.json, the Audit of healthy.pt: measured once."""
    kept = samples / "healthy.json"
    if not kept.exists():
        assert bnaudit("gate", HEALTHY, "--write-baseline", "--baseline", kept).code == 0
    return Path(shutil.copy(kept, work / "healthy.json"))


@pytest.fixture
def wrong_audit(bnaudit: Run, samples: Path, work: Path) -> Path:
    """wrong.json, the Audit of small_batch.pt: measured once."""
    kept = samples / "wrong.json"
    if not kept.exists():
        assert bnaudit("gate", WRONG, "--write-baseline", "--baseline", kept).code == 0
    return Path(shutil.copy(kept, work / "wrong.json"))
