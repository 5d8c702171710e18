"""`recalibrate` judges the calibration data before anything is recalibrated on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured_images import normalised, pictures, trained
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.cli import main
from bnaudit.errors import InputError


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return pictures(192, seed=5)[0]


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if "running_" in k}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda p: p, "not normalised"),
        (lambda p: 255 * p, "from 0 to 255"),
        (lambda p: normalised(p.flip(1)), "BGR for RGB"),
        (lambda p: normalised(normalised(p)), "normalised twice"),
    ],
)
def test_wrong_data_are_refused_in_one_line_that_names_the_mistake(
    given: Callable[[Tensor], Tensor], said: str, pixels: Tensor
) -> None:
    model = trained()
    before = statistics_of(model)
    with pytest.raises(InputError) as refused:
        bnaudit.recalibrate(model, TensorDataset(given(pixels)))
    message = str(refused.value)
    assert said in message
    assert "--force" in message
    assert "\n" not in message
    assert all(torch.equal(v, before[k]) for k, v in statistics_of(model).items())


def test_with_force_it_goes_on_and_a_note_keeps_what_was_found(pixels: Tensor) -> None:
    model = trained()
    before = statistics_of(model)
    result = bnaudit.recalibrate(model, TensorDataset(pixels), force=True)
    assert result.applied
    assert any("not normalised" in note and "--force" in note for note in result.report.notes)
    assert not all(torch.equal(v, before[k]) for k, v in statistics_of(model).items())


def test_a_stream_is_read_once_and_is_all_there_afterwards(pixels: Tensor) -> None:
    parts = [pixels[start : start + 32] for start in range(0, 192, 32)]
    with pytest.raises(InputError, match="not normalised"):
        bnaudit.recalibrate(trained(), iter(parts))
    streamed, held = trained(), trained()
    result = bnaudit.recalibrate(streamed, iter(parts), force=True)
    assert result.report.data.samples == 192
    bnaudit.recalibrate(held, DataLoader(TensorDataset(pixels), 32), force=True)
    for name, value in statistics_of(held).items():
        assert torch.allclose(value, statistics_of(streamed)[name], atol=1e-6), name


def test_the_judgement_changes_no_result_and_no_generator(
    pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = TensorDataset(normalised(0.4 * pixels))
    first, second = trained(), trained()
    state = torch.get_rng_state()
    judged = bnaudit.recalibrate(first, dark)
    assert torch.equal(state, torch.get_rng_state())
    monkeypatch.setattr("bnaudit.verbs.recalibration.try_preprocessing", lambda *_: None)
    unjudged = bnaudit.recalibrate(second, dark)
    assert judged.report.notes == unjudged.report.notes
    for name, (mean, var) in unjudged.statistics.items():
        assert torch.equal(mean, judged.statistics[name][0])
        assert torch.equal(var, judged.statistics[name][1])


@pytest.mark.parametrize(
    "camera",
    [
        pytest.param(lambda p: p, id="as-in-training"),
        pytest.param(lambda p: 0.3 * p, id="dark", marks=pytest.mark.slow),
        pytest.param(lambda p: 0.5 * p + 0.25, id="haze", marks=pytest.mark.slow),
        pytest.param(lambda p: (p + 0.3).clamp(0, 1), id="overexposed"),
        pytest.param(
            lambda p: p * torch.tensor([0.7, 0.85, 1.0]).view(3, 1, 1),
            id="tint",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_data_of_another_camera_are_what_recalibration_is_for(
    camera: Callable[[Tensor], Tensor], pixels: Tensor
) -> None:
    result = bnaudit.recalibrate(trained(), TensorDataset(normalised(camera(pixels))))
    assert result.applied
    assert not any("preprocessed" in note for note in result.report.notes)


# The command

NET = """
import sys
sys.path.insert(0, {tests!r})
from coloured_images import Net as net, normalised

def right():
    return lambda image: normalised(image)

def none():
    return lambda image: image
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.save(trained().state_dict(), tmp_path / "net.pt")
    (tmp_path / "parts.py").write_text(NET.format(tests=str(Path(__file__).parent)))
    x, y = pictures(192, seed=5)
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    words = ["bnaudit", "recalibrate", "net.pt", "--model", "parts.py:net", "--data"]
    monkeypatch.setattr(sys, "argv", [*words, "npz:data.npz", "-o", "new.pt", *args])
    with pytest.raises(SystemExit) as ended:
        main.run()
    return int(ended.value.code or 0)


def test_the_command_refuses_with_code_2_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--transform", "parts.py:none") == 2
    said = capfd.readouterr().err
    assert "not normalised" in said
    assert "--force" in said
    assert "Traceback" not in said
    assert not (folder / "new.pt").exists()


def test_the_command_writes_with_force_and_keeps_the_note_beside_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "--transform", "parts.py:none", "--force") == 0
    assert (folder / "new.pt").exists()
    beside = [file.read_text() for file in folder.glob("new*.json")]
    assert any("not normalised" in text for text in beside)


def test_the_command_takes_data_that_are_as_they_should_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--transform", "parts.py:right", "--dry-run") in (0, 1)
    assert "preprocessed wrongly" not in capfd.readouterr().err
