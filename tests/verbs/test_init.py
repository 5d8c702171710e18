"""`init` as a function: what it says that it found, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import classifier

from bnaudit.config import read_config, resolve
from bnaudit.errors import InputError
from bnaudit.verbs.init import Wanted, init, only_checkpoint


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(classifier().state_dict(), "tiny.pt")
    np.savez("val.npz", x=np.zeros((9, 3, 8, 8), np.float32), y=np.arange(9) % 4)
    Path("nets.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from tiny_models import classifier\n"
    )
    return tmp_path


def test_what_was_found_is_told_and_works() -> None:
    done = init(wanted=Wanted(model="nets.py:classifier"))
    assert done.path == Path("bnaudit.toml")
    assert done.missing == ()
    assert done.problem is None
    assert done.tried == "measured"
    assert dict(done.found)["checkpoint"].startswith("tiny.pt: ")
    assert "3 BatchNorm layers" in dict(done.found)["checkpoint"]
    settings = resolve({}, read_config(done.path))
    assert settings.data == "npz:val.npz"
    assert settings.model == "nets.py:classifier"


def test_an_argument_that_toml_cannot_hold_is_refused_and_nothing_written(here: Path) -> None:
    before = sorted(here.iterdir())
    with pytest.raises(InputError, match="cannot be written in a TOML file"):
        init(wanted=Wanted(model="torchvision:resnet18", model_arg={"norm_layer": None}))
    assert sorted(here.iterdir()) == before


def test_an_interrupted_search_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = sorted(here.iterdir())
    monkeypatch.setattr("bnaudit.verbs.init_model.find_architectures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        init()
    assert sorted(here.iterdir()) == before


def test_a_disk_without_space_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(InputError, match="No space left"):
        init(wanted=Wanted(model="nets.py:classifier"))
    assert not Path("bnaudit.toml").exists()
    assert not [path for path in here.iterdir() if path.suffix == ".tmp"]


def test_a_dangling_link_counts_as_a_file_that_is_there() -> None:
    Path("bnaudit.toml").symlink_to("nowhere.toml")
    with pytest.raises(InputError, match="is there already"):
        init(wanted=Wanted(model="nets.py:classifier"))
    assert Path("bnaudit.toml").is_symlink()


def test_the_only_checkpoint_is_taken(here: Path) -> None:
    assert only_checkpoint(here) == here / "tiny.pt"
    (here / "optimizer.bin").write_bytes(b"something else")
    assert only_checkpoint(here) == here / "tiny.pt"
    (here / "tiny.pt").unlink()
    (here / "optimizer.bin").unlink()
    with pytest.raises(InputError, match="no checkpoint"):
        only_checkpoint(here)
