"""The gate through the life of a checkpoint: sound, broken in five ways, mended where it can be.

A small network is trained on digits in colour, so that the order of the channels matters. All that
follows goes through the command line, as in a CI job.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from workplace import SAMPLES, Run

NET = """\
import numpy as np
import torch
from torch import nn


def model():
    widths = (3, 12, 16, 24)
    layers = []
    for wide_in, wide_out in zip(widths, widths[1:]):
        layers += [
            nn.Conv2d(wide_in, wide_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide_out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10))


def tensor(image):
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / 255).float()
    return (pixels - 0.4) / 0.3


def transform():
    return tensor


def hazy():
    return lambda image: tensor(image) * 0.5 + 0.6


def bgr():
    return lambda image: tensor(image).flip(0)
"""

BN = ("1", "4", "7")
"""The names of the three layers."""

CONFIG = """\
model = "net.py:model"
data = "npz:digits.npz"
data_arg = { split = "test" }
transform = "net.py:transform"
samples = "all"
attribute = "none"

[gate]
min_accuracy = 0.85
"""


def in_colour(grey: np.ndarray) -> np.ndarray:
    """Yellowish ink on bluish paper: (N, 8, 8) to (N, 8, 8, 3) in 0 to 255."""
    paper, ink = np.array([30, 60, 130.0]), np.array([250, 200, 40.0])
    share = grey[..., None] / 255.0
    return (paper + share * (ink - paper)).round().astype(np.uint8)


def factory(folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec((folder / "net.py").read_text(), names)
    return names


def tensors(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    with np.load(folder / "digits.npz") as file:
        x, y = file[f"x_{split}"], file[f"y_{split}"]
    tensor = factory(folder)["tensor"]
    return torch.stack([tensor(image) for image in x]), torch.from_numpy(y).long()


def train(model: nn.Module, x: Tensor, y: Tensor, *, epochs: int, batch: int, lr: float) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            if len(chosen) == batch:
                optimiser.zero_grad()
                functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
                optimiser.step()


def bn_layers(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@dataclass(frozen=True)
class Project:
    """A folder with a network, data, a configuration and checkpoints, and a gate to run there."""

    folder: Path
    bnaudit: Run

    def gate(self, checkpoint: str, *options: str) -> tuple[int, dict[str, Any]]:
        ran = self.bnaudit("gate", checkpoint, *options, "--format", "json")
        assert ran.code in (0, 1), ran.err
        return ran.code, json.loads(ran.out)

    def recalibrated(self, checkpoint: str, *options: str) -> str:
        """Recalibrate on training images, verified on others; the name of the copy."""
        data = ("--data-arg", "split=train", "--verify", "npz:digits.npz", "--verify-arg")
        name = f"mended_{checkpoint}"
        ran = self.bnaudit("recalibrate", checkpoint, *data, "split=verify", "-o", name, *options)
        assert ran.code == 0, ran.err + ran.out
        return name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all checkpoints: trained once, broken in four ways."""
    folder = tmp_path_factory.mktemp("story")
    (folder / "net.py").write_text(NET)
    (folder / "bnaudit.toml").write_text(CONFIG)
    with np.load(SAMPLES / "digits.npz") as file:
        arrays = {k: in_colour(file[k]) if k.startswith("x_") else file[k] for k in file.files}
    np.savez(folder / "digits.npz", **arrays)
    x, y = tensors(folder, "train")

    torch.manual_seed(0)
    model = factory(folder)["model"]()
    train(model, x, y, epochs=10, batch=32, lr=0.05)
    train(model, x, y, epochs=3, batch=30, lr=0.002)
    torch.save(model.state_dict(), folder / "good.pt")

    small = factory(folder)["model"]()
    small.load_state_dict(model.state_dict())
    for layer in bn_layers(small):
        layer.momentum = 0.5
    train(small, x[:300], y[:300], epochs=1, batch=2, lr=1e-4)
    torch.save(small.state_dict(), folder / "small_batches.pt")

    # The average of weights along a fast walk, beside the statistics of its last step.
    walker = factory(folder)["model"]()
    walker.load_state_dict(model.state_dict())
    steps = []
    for _ in range(6):
        train(walker, x, y, epochs=1, batch=32, lr=0.3)
        steps.append({k: v.clone() for k, v in walker.state_dict().items()})
    averaged = walker.state_dict()
    for name, _ in walker.named_parameters():
        averaged[name] = torch.stack([step[name] for step in steps]).mean(0)
    torch.save(averaged, folder / "averaged.pt")

    reset = {k: v.clone() for k, v in model.state_dict().items()}
    reset["4.running_mean"].zero_()
    reset["4.running_var"].fill_(1)
    torch.save(reset, folder / "reset.pt")
    return folder


@pytest.fixture
def project(
    trained: Path, tmp_path: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch
) -> Project:
    shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Project(tmp_path / "project", bnaudit)


def failing(gate: dict[str, Any]) -> dict[str, list[str]]:
    """The layers of each check that fails, by its name."""
    return {c["name"]: c["layers"] for c in gate["checks"] if c["outcome"] == "fail"}


def test_a_sound_checkpoint_passes(project: Project) -> None:
    code, gate = project.gate("good.pt")
    assert (code, gate["outcome"]) == (0, "pass")
    assert failing(gate) == {}


def test_small_batches_fail_in_the_last_layer_and_recalibration_mends_them(
    project: Project,
) -> None:
    code, gate = project.gate("small_batches.pt")
    assert code == 1
    assert "BN101" in failing(gate)
    assert BN[-1] in failing(gate)["BN101"]
    assert project.gate(project.recalibrated("small_batches.pt"))[0] == 0


def test_averaged_weights_fail_and_recalibration_mends_them(project: Project) -> None:
    code, gate = project.gate("averaged.pt")
    assert code == 1
    assert set(failing(gate)["BN101"]) >= {"4", "7"}
    assert project.gate(project.recalibrated("averaged.pt"))[0] == 0


def test_shifted_data_fail_from_the_first_layer_on_and_recalibration_on_them_mends_it(
    project: Project,
) -> None:
    hazy = ("--transform", "net.py:hazy")
    code, gate = project.gate("good.pt", *hazy)
    assert code == 1
    assert BN[0] in failing(gate)["BN101"]
    mended = project.recalibrated("good.pt", *hazy)
    assert project.gate(mended, *hazy)[0] == 0
    assert project.gate("good.pt")[0] == 0


def test_a_layer_that_was_reset_fails_alone_and_recalibration_mends_it(project: Project) -> None:
    code, gate = project.gate("reset.pt")
    assert code == 1
    assert failing(gate)["BN004"] == ["4"]
    assert project.gate(project.recalibrated("reset.pt"))[0] == 0


def test_images_in_bgr_fail_recalibration_refuses_them_and_in_rgb_the_gate_passes(
    project: Project,
) -> None:
    bgr = ("--transform", "net.py:bgr")
    code, gate = project.gate("good.pt", *bgr)
    assert code == 1
    assert "BN301" in failing(gate)
    sentence = next(c["sentence"] for c in gate["checks"] if c["name"] == "BN301")
    assert "BGR" in sentence
    assert f"layer {BN[0]}" in sentence
    ran = project.bnaudit("recalibrate", "good.pt", "-o", "no.pt", *bgr)
    assert ran.code == 2
    assert "BGR" in ran.err or "reverse" in ran.err
    assert not (project.folder / "no.pt").exists()
    assert project.gate("good.pt")[0] == 0


@pytest.mark.slow
def test_with_a_baseline_only_what_gets_worse_fails(project: Project) -> None:
    baseline = ("--baseline", "main.json")
    code, accepted = project.gate("small_batches.pt", "--write-baseline", *baseline)
    assert code == 0
    assert {waived["setting"] for waived in accepted["waived"]} == {"accepted"}
    assert project.gate("small_batches.pt", *baseline)[0] == 0
    assert project.gate("small_batches.pt", *baseline, "--seed", "5")[0] == 0
    code, gate = project.gate("reset.pt", *baseline)
    assert code == 1
    assert failing(gate)["BN004"] == ["4"]
    assert "4" in failing(gate)["layer_esm"]


@pytest.mark.slow
def test_the_checkpoint_before_it_is_measured_on_the_same_samples(project: Project) -> None:
    code, gate = project.gate("good.pt", "--base-checkpoint", "good.pt", "--samples", "100")
    assert code == 0
    assert gate["changes"]["paired"]
    assert all(x["output_shift"]["difference"] == 0 for x in gate["changes"]["layers"])
    code, gate = project.gate("averaged.pt", "--base-checkpoint", "good.pt")
    assert code == 1
    assert set(failing(gate)["layer_esm"]) >= {"4", "7"}
