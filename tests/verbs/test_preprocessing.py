"""Wrong preprocessing is found out by trial: what is tried, what is named, what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from coloured_images import MEAN, STD, Net, normalised, pictures, trained
from torch import Tensor, nn
from torch.nn import functional

from bnaudit.engine.batches import Batch, default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import find_layers
from bnaudit.findings.rules.preprocessing import explained
from bnaudit.results import Preprocessing
from bnaudit.stats.pixels import IMAGENET
from bnaudit.verbs.preprocessing import try_preprocessing

CPU = torch.device("cpu")

TO_IMAGENET = "where the model wants them scaled to 0 to 1 and normalised with ImageNet's mean"


def batches(data: Callable[[slice], Any], size: int, every: int = 32) -> list[Batch]:
    """`size` samples, of which `data(slice)` gives a part, in batches."""
    return [
        Batch(i, data(slice(start, start + every)), torch.arange(min(every, size - start)))
        for i, start in enumerate(range(0, size, every))
    ]


def tried(
    model: nn.Module, x: Tensor, wrap: Callable[[Tensor], Any] = lambda x: x
) -> Preprocessing | None:
    """What is tried of the samples `x`, each batch of them wrapped."""
    subject = Subject(model, find_layers(model), Conditions(default_forward, CPU))
    with subject.conditions.entered(model):
        return try_preprocessing(subject, batches(lambda part: wrap(x[part]), len(x)))


def named(model: nn.Module, x: Tensor) -> str | None:
    """The mistake that explains the data; None where none does."""
    found = tried(model, x)
    assert found is not None
    wrong = explained(found)
    return None if wrong is None else wrong.evidence["mistake"]


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return pictures(192, seed=5)[0]


@pytest.fixture
def model() -> Net:
    return trained()


# What is named


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda p: normalised(p.flip(1)), "the channels are in reverse order (BGR for RGB"),
        (lambda p: normalised(p).flip(1), "the channels are in reverse order (BGR for RGB"),
        (lambda p: 255 * p, f"the pixels are from 0 to 255, {TO_IMAGENET}"),
        (lambda p: p, f"the pixels are from 0 to 1 and not normalised, {TO_IMAGENET}"),
        (
            lambda p: normalised(normalised(p)),
            "the pixels are normalised twice with ImageNet's mean and deviation",
        ),
        (lambda p: 2 * p - 1, f"the pixels are from −1 to 1, {TO_IMAGENET}"),
        (
            lambda p: normalised(255 * p),
            "the pixels are from 0 to 255, normalised with ImageNet's mean and deviation",
        ),
        (lambda p: normalised(p / 255), "the pixels are divided by 255 twice, normalised with"),
        (
            lambda p: 255 * p.flip(1),
            f"the pixels are from 0 to 255, {TO_IMAGENET} and deviation, and the channels are in",
        ),
        (
            lambda p: normalised(p.permute(0, 2, 3, 1).reshape(p.shape)),
            "the arrays (H, W, C) were reshaped to (C, H, W), not transposed",
        ),
        (lambda p: normalised(1 - p), "dark and bright are swapped"),
    ],
    ids=[
        "bgr",
        "bgr-after-normalisation",
        "0-to-255",
        "not-normalised",
        "normalised-twice",
        "half",
        "0-to-255-normalised",
        "divided-twice",
        "bgr-from-0-to-255",
        "reshaped",
        "inverted",
    ],
)
def test_the_mistake_that_was_made_is_named(
    given: Callable[[Tensor], Tensor], said: str, model: Net, pixels: Tensor
) -> None:
    assert (named(model, given(pixels)) or "").startswith(said)


def test_a_model_for_plain_pixels_that_gets_normalised_ones_is_told(pixels: Tensor) -> None:
    net = trained()

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(normalised(x))

    assert named(Plain(), pixels) is None
    said = named(Plain(), normalised(pixels)) or ""
    assert said.startswith("the pixels are scaled to 0 to 1 and normalised with ImageNet's")
    assert said.endswith("where the model wants them from 0 to 1 and not normalised")


def test_images_of_any_size_and_of_no_whole_levels_are_judged_too(
    model: Net, pixels: Tensor
) -> None:
    larger = functional.interpolate(pixels, size=(24, 20), mode="bilinear")
    assert named(model, normalised(larger)) is None
    assert "not normalised" in (named(model, larger) or "")


# What is not


CAMERAS: dict[str, Callable[[Tensor], Tensor]] = {
    "as-in-training": lambda p: p,
    "contrast": lambda p: (
        0.4 * (p - p.mean((1, 2, 3), keepdim=True)) + p.mean((1, 2, 3), keepdim=True)
    ),
    "dark": lambda p: 0.3 * p,
    "upper-half": lambda p: 0.5 * p + 0.5,
    "haze": lambda p: 0.5 * p + 0.25,
    "overexposed": lambda p: (p + 0.3).clamp(0, 1),
    "blur": lambda p: functional.avg_pool2d(p, 3, 1, 1),
    "half-size": lambda p: functional.avg_pool2d(p, 2),
    "noise": lambda p: (p + 0.2 * torch.randn(p.shape)).clamp(0, 1),
    "blue-tint": lambda p: p * torch.tensor([0.7, 0.85, 1.0]).view(3, 1, 1),
    "grey": lambda p: p.mean(1, keepdim=True).expand_as(p),
    "gamma": lambda p: p**0.5,
}
OFTEN = ("as-in-training", "contrast", "upper-half", "blur", "noise", "blue-tint")
"""One of each sort: darker and brighter, of another sharpness, of another colour."""


@pytest.mark.parametrize(
    "camera",
    [
        pytest.param(camera, marks=[pytest.mark.slow] * (name not in OFTEN), id=name)
        for name, camera in CAMERAS.items()
    ],
)
@pytest.mark.parametrize(
    "levels", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["8-bit", "float"]
)
def test_another_camera_is_no_mistake_of_the_preprocessing(
    camera: Callable[[Tensor], Tensor], levels: bool, model: Net, pixels: Tensor
) -> None:
    torch.manual_seed(0)
    seen = camera(pixels)
    if levels:
        seen = (seen * 255).round() / 255
    assert named(model, normalised(seen)) is None


def test_statistics_that_were_never_estimated_are_not_blamed_on_the_data(pixels: Tensor) -> None:
    torch.manual_seed(0)
    fresh = Net().eval()
    assert named(fresh, normalised(pixels)) is None


# What it costs, and what it leaves alone


def test_nothing_is_tried_where_the_first_layers_see_what_they_expect(
    model: Net, pixels: Tensor
) -> None:
    calls: list[int] = []
    model.last.register_forward_hook(lambda *_: calls.append(1))
    found = tried(model, normalised(pixels))
    assert found is not None
    assert found.candidates == ()
    assert found.shift < 0.1
    assert found.layers == ("bns.0", "bns.1", "bns.2")
    assert calls == []  # no forward went further than the third layer


def test_model_generators_and_data_are_as_before(model: Net, pixels: Tensor) -> None:
    x = 255 * pixels
    before = {k: v.clone() for k, v in model.state_dict().items()}
    kept, state = x.clone(), torch.get_rng_state()
    tried(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(kept, x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_the_same_samples_give_the_same_figures(model: Net, pixels: Tensor) -> None:
    assert tried(model, pixels) == tried(model, pixels)


def test_the_figures_of_the_right_candidate_are_those_of_the_right_data(
    model: Net, pixels: Tensor
) -> None:
    """Undoing "not normalised" is normalising: both give the same shift."""
    wrong, right = tried(model, pixels), tried(model, normalised(pixels))
    assert wrong is not None
    assert right is not None
    best = wrong.candidates[0]
    assert best.shift.after == pytest.approx(right.shift, abs=1e-4)
    assert best.shift.before == wrong.shift
    assert best.by_layer == pytest.approx(right.by_layer, abs=1e-4)
    assert best.shift.low is not None
    assert best.shift.high is not None
    assert best.shift.low <= best.shift.difference <= best.shift.high < 0


# Inputs of other forms


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, torch.zeros(len(x), dtype=torch.long)),
        lambda x: [x, torch.zeros(len(x), dtype=torch.long)],
        lambda x: {"x": x, "labels": torch.zeros(len(x), dtype=torch.long)},
        lambda x: (x, torch.zeros(len(x), 1, 16, 16)),  # masks are no images
    ],
    ids=["pair", "list", "mapping", "masks"],
)
def test_the_images_of_a_batch_are_found(
    wrap: Callable[[Tensor], Any], model: Net, pixels: Tensor
) -> None:
    found = tried(model, 255 * pixels, wrap)
    assert found is not None
    wrong = explained(found)
    assert wrong is not None
    assert wrong.evidence["mistake"].startswith("the pixels are from 0 to 255")


def test_a_list_of_images_is_judged_as_a_batch_is(pixels: Tensor) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained()

        def forward(self, images: list[Tensor]) -> Tensor:
            return self.net(torch.stack(images))

    model, data = Detector().eval(), list(255 * pixels)
    subject = Subject(model, find_layers(model), Conditions(default_forward, CPU))
    with subject.conditions.entered(model):
        found = try_preprocessing(subject, batches(lambda part: data[part], len(data), 16))
    assert found is not None
    alone = tried(trained(), 255 * pixels)
    assert alone is not None
    assert [c.mistake for c in found.candidates] == [c.mistake for c in alone.candidates] != []
    assert found.shift == pytest.approx(alone.shift)


@pytest.mark.parametrize(
    ("net", "x", "why"),
    [
        (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), torch.randn(64, 6) + 3, "no images"),
        (nn.Sequential(nn.Conv2d(5, 8, 3), nn.BatchNorm2d(8)), torch.rand(64, 5, 6, 6), "no image"),
        (trained(), 255 * pictures(4)[0], "no interval from 4 samples"),
    ],
    ids=["features", "five-channels", "few"],
)
def test_where_nothing_can_be_tried_a_note_says_why(net: nn.Module, x: Tensor, why: str) -> None:
    found = tried(net.eval(), x)
    assert found is not None
    assert found.candidates == ()
    assert why in (found.note or "")
    assert explained(found) is None


def test_candidates_that_the_model_does_not_take_are_left_out(pixels: Tensor) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained()

        def forward(self, x: Tensor) -> Tensor:
            if float(x.max()) <= 1:
                raise ValueError("these are not levels")
            return self.net(x)

    found = tried(Picky().eval(), 255 * pixels)
    assert found is not None
    wrong = explained(found)
    assert wrong is not None
    assert "from −1 to 1" not in "".join(c.mistake for c in found.candidates)


def test_candidates_that_overflow_are_left_out(pixels: Tensor) -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.exp())

    found = tried(Steep().eval(), pixels)
    assert found is not None
    assert found.candidates
    assert not any("wants them from 0 to 255" in c.mistake for c in found.candidates)


def test_without_class_scores_a_fault_of_the_pixels_has_to_explain_half(pixels: Tensor) -> None:
    class Maps(Net):
        def forward(self, x: Tensor) -> Any:
            for conv, bn in zip(self.convs, self.bns, strict=True):
                x = functional.relu(bn(conv(x)))
            return {"out": x}

    maps = Maps()
    maps.load_state_dict(trained().state_dict())
    wrong = named(maps.eval(), normalised(pixels.flip(1))) or ""
    assert wrong.startswith("the channels are in reverse order")
    tinted = (pixels.flip(1) * torch.tensor([0.4, 1.0, 0.4]).view(3, 1, 1)).clamp(0, 1)
    assert named(maps, normalised(tinted)) is None


@pytest.mark.slow
def test_a_large_network_of_torchvision_runs_through(pixels: Tensor) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    large = functional.interpolate(pixels[:16], size=224, mode="nearest")
    found = tried(resnet18(weights=None).eval(), large)
    assert found is not None
    assert found.layers == ("bn1", "layer1.0.bn1", "layer1.0.bn2")
    assert found.candidates
    assert explained(found) is None


def test_mean_and_deviation_are_those_of_imagenet() -> None:
    from torchvision.models import ResNet18_Weights

    transforms = ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert MEAN.flatten().tolist() == pytest.approx(transforms.mean)
    assert STD.flatten().tolist() == pytest.approx(transforms.std)
    assert transforms.mean == list(IMAGENET.mean)
    assert transforms.std == list(IMAGENET.std)
