"""`bnaudit init` where no published model fits: the Python files that may define it."""

from __future__ import annotations

from pathlib import Path

import pytest
from workplace import Run

from bnaudit.config import read_config
from bnaudit.verbs.init_candidates import candidates


@pytest.fixture(autouse=True)
def _no_published_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search among these is tested elsewhere, and none of them fits."""
    monkeypatch.setattr("bnaudit.verbs.architectures.timm_families", dict)
    monkeypatch.setattr("bnaudit.verbs.architectures.torchvision_specs", list)


def test_a_file_that_may_define_the_model_is_named_in_the_file_and_on_the_screen(
    folder: Path, bnaudit: Run
) -> None:
    ran = bnaudit("init")
    assert ran.code == 0, ran.err
    assert 'model = "net.py:model"' in " ".join(ran.out.split())
    path = Path("bnaudit.toml")
    assert read_config(path).values.get("model") is None
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('# model = "net.py:model"', 'model = "net.py:model"'))
    assert bnaudit("measure", "--no-plots", "--attribute", "none").code == 0


def test_the_spec_is_relative_to_the_new_file(folder: Path, bnaudit: Run) -> None:
    assert bnaudit("init", "-o", "ci/bnaudit.toml").code == 0
    assert '# model = "../net.py:model"' in Path("ci/bnaudit.toml").read_text(encoding="utf-8")


def test_nothing_of_a_candidate_is_run(folder: Path, bnaudit: Run) -> None:
    Path("net.py").unlink()
    Path("evil.py").write_text(
        "import torch\nopen('ran', 'w')\n\ndef net():\n    raise SystemExit\n"
    )
    assert "evil.py:net" in bnaudit("init").out
    assert not Path("ran").exists()


def test_without_such_a_file_none_is_named(folder: Path, bnaudit: Run) -> None:
    Path("net.py").unlink()
    ran = bnaudit("init")
    assert ran.code == 0
    assert "of your own" not in ran.out
    assert "of your own" not in Path("bnaudit.toml").read_text(encoding="utf-8")


def test_what_is_like_a_model_comes_first_and_private_names_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n"
        "class Config: pass\n"
        "def train(): pass\n"
        "class Net(nn.Module):\n    def inner(self): pass\n"
        "def resnet20(classes=10): return Net()\n"
        "def _hidden(): pass\n"
    )
    (found,) = candidates([tmp_path])
    assert found.names == ("resnet20", "Net", "train", "Config")


def test_files_that_are_no_candidates_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "no_torch.py").write_text("import numpy\ndef model(): pass\n")
    (tmp_path / "empty.py").write_text("import torch\n")
    (tmp_path / "broken.py").write_text("import torch\ndef model(:\n")
    (tmp_path / "deep.py").write_text("import torch\nx = " + "(" * 5000 + ")" * 5000)
    (tmp_path / "binary.py").write_bytes(b"\x80\x02\x00")
    (tmp_path / "test_net.py").write_text("import torch\ndef test_model(): pass\n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "large.py").write_text("import torch\ndef model(): pass\n" + "#" * 2**20)
    (tmp_path / "a:b.py").write_text("import torch\ndef model(): pass\n")
    assert candidates([tmp_path, tmp_path / "nowhere"]) == ()


def test_a_folder_that_is_named_twice_is_looked_into_once(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\ndef model(): pass\n")
    (tmp_path / "sub").mkdir()
    assert len(candidates([tmp_path, tmp_path / "sub" / ".."])) == 1
