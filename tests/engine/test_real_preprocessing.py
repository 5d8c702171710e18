"""Wrong preprocessing of real images for real networks: the shared ResNets on the shared images.

The shift of the first layer under each mistake, as a prototype saw it: ../shared/facts.md.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cifar_resnet import DATA, read_test_images, trained
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.engine.batches import Batch, default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import find_layers
from bnaudit.errors import InputError
from bnaudit.findings.rules.preprocessing import explained
from bnaudit.verbs.preprocessing import try_preprocessing

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="no folder ../shared/data"),
]

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
DRAWS = 8

IMAGENET = "where the model wants them scaled to 0 to 1 and normalised with ImageNet's mean"


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - MEAN) / STD


def levels(pixels: Tensor) -> Tensor:
    """As an 8-bit image would have it."""
    return (pixels.clamp(0, 1) * 255).round() / 255


def tint(red: float, green: float, blue: float) -> Callable[[Tensor], Tensor]:
    return lambda p: levels(p * torch.tensor([red, green, blue]).view(3, 1, 1))


MISTAKES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "bgr": (lambda p: normalised(p.flip(1)), "the channels are in reverse order"),
    "0-to-255": (lambda p: 255 * p, f"the pixels are from 0 to 255, {IMAGENET}"),
    "plain": (lambda p: p, f"the pixels are from 0 to 1 and not normalised, {IMAGENET}"),
    "twice": (lambda p: normalised(normalised(p)), "the pixels are normalised twice"),
    "half": (lambda p: 2 * p - 1, f"the pixels are from −1 to 1, {IMAGENET}"),
    "0-to-255-normalised": (
        lambda p: normalised(255 * p),
        "the pixels are from 0 to 255, normalised with ImageNet's",
    ),
    "reshaped": (
        lambda p: normalised(p.permute(0, 2, 3, 1).reshape(p.shape)),
        "the arrays (H, W, C) were reshaped",
    ),
}

CAMERAS: dict[str, Callable[[Tensor], Tensor]] = {
    "correct": lambda p: p,
    "contrast": lambda p: 0.4 * (p - p.mean((1, 2, 3), True)) + p.mean((1, 2, 3), True),
    "dark": lambda p: 0.3 * p,
    "upper-half": lambda p: 0.5 * p + 0.5,
    "haze": lambda p: 0.5 * p + 0.25,
    "overexposed": lambda p: levels(p + 0.3),
    "gamma": lambda p: levels(p**0.5),
    "blur": lambda p: functional.avg_pool2d(p, 3, 1, 1),
    "noise": lambda p: (p + 0.3 * torch.randn(p.shape)).clamp(0, 1),
    "half-size": lambda p: functional.avg_pool2d(p, 2),
    "grey": lambda p: p.mean(1, keepdim=True).expand_as(p),
    "bluish": tint(0.7, 0.85, 1.0),
    "blue": tint(0.5, 0.7, 1.0),
    "red": tint(1.0, 0.7, 0.5),
}


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """All test images, from 0 to 1 in whole levels."""
    return levels(read_test_images()[0] * STD + MEAN)


def draw(pixels: Tensor, seed: int, count: int = 256) -> Tensor:
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))[:count]
    return pixels[chosen]


def named(blocks: int, x: Tensor) -> str:
    model = trained(blocks)
    subject = Subject(model, find_layers(model), Conditions(default_forward, torch.device("cpu")))
    batches = [
        Batch(i, x[start : start + 32], torch.arange(32))
        for i, start in enumerate(range(0, len(x), 32))
    ]
    with subject.conditions.entered(model):
        tried = try_preprocessing(subject, batches)
    assert tried is not None
    wrong = explained(tried)
    return "" if wrong is None else wrong.evidence["mistake"]


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("blocks", [3, 9], ids=["resnet20", "resnet56"])
def test_every_mistake_is_named_in_every_draw(blocks: int, mistake: str, pixels: Tensor) -> None:
    make, said = MISTAKES[mistake]
    for seed in range(DRAWS):
        assert named(blocks, make(draw(pixels, seed))).startswith(said), seed


@pytest.mark.parametrize("blocks", [3, 9], ids=["resnet20", "resnet56"])
def test_channels_reversed_after_the_normalisation_are_named_in_most_draws(
    blocks: int, pixels: Tensor
) -> None:
    """The gentlest mistake: the mean of every channel is right. In 28 of 32 draws."""
    said = [named(blocks, normalised(draw(pixels, seed)).flip(1)) for seed in range(DRAWS)]
    assert {what.partition(" (")[0] for what in said} <= {"", "the channels are in reverse order"}
    assert sum(map(bool, said)) > DRAWS // 2


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("blocks", [3, 9], ids=["resnet20", "resnet56"])
def test_no_mistake_is_named_where_none_was_made(blocks: int, camera: str, pixels: Tensor) -> None:
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        assert named(blocks, normalised(CAMERAS[camera](draw(pixels, seed)))) == "", seed


@pytest.mark.parametrize("given", ["correct", "bgr", "0-to-255", "plain", "twice"])
def test_measure_names_each_of_five_runs_rightly(given: str, pixels: Tensor) -> None:
    make, said = MISTAKES.get(given, (normalised, ""))
    data = TensorDataset(make(draw(pixels, 0, 512)))
    audit = bnaudit.measure(trained(3), data, attribute="none")
    found = [f for f in audit.findings if f.code == "BN301"]
    assert len(found) == (0 if given == "correct" else 1)
    assert all(said in f.sentence and f.severity == "error" for f in found)


@pytest.mark.parametrize("given", ["bgr", "0-to-255", "plain", "twice"])
def test_recalibrate_refuses_them(given: str, pixels: Tensor) -> None:
    make, said = MISTAKES[given]
    with pytest.raises(InputError) as refused:
        bnaudit.recalibrate(trained(3), TensorDataset(make(draw(pixels, 0, 512))))
    assert said in str(refused.value)
