"""Videos, volumes, sound, latents and point clouds: what images have, from a line of their user.

Each model was trained for a few steps, so that its estimates lag behind. Every figure is compared
with float64, and after `exact` nothing but the statistics differs from before.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from layer_oracle import ROUNDING, assert_measured, assert_only_statistics_became_exact, trained
from other_models import AudioNet, Generator, PointNet, UNet3d, VideoNet, WaveNet
from torch import Tensor, nn

import bnaudit
from bnaudit.engine.batches import default_forward

SIZES = (12, 12, 12, 5)
"""Samples a batch; the last is smaller than the others, as a loader's last one is."""


@pytest.fixture
def drawn() -> torch.Generator:
    """What the batches come from."""
    return torch.Generator().manual_seed(1)


def classes(n: int, drawn: torch.Generator) -> Tensor:
    return torch.randint(4, (n,), generator=drawn)


def made(kind: type[nn.Module], batches: list[Any], forward: Any = default_forward) -> nn.Module:
    """A model of that kind after three steps of training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return trained(kind(), batches[:3], forward)


def has_residual_of_rounding(result: bnaudit.Recalibration, layers: int) -> None:
    assert result.report.method == "exact"
    assert len(result.report.changed) == layers
    assert result.report.residual is not None
    assert result.report.residual_before is not None
    assert result.report.residual <= ROUNDING < result.report.residual_before


def test_a_network_over_videos_needs_nothing_but_its_loader(drawn: torch.Generator) -> None:
    """Clips (N, C, T, H, W), each frame brighter than the one before."""
    ramp = torch.linspace(0, 1, 6)[:, None, None]
    clips = [(torch.rand(n, 3, 6, 8, 8, generator=drawn) + ramp, classes(n, drawn)) for n in SIZES]
    model = made(VideoNet, clips)
    before = copy.deepcopy(model.state_dict())

    audit = bnaudit.measure(model, clips)
    result = bnaudit.recalibrate(model, clips, method="exact")

    assert_measured(audit, before, model, clips, default_forward)
    assert audit.layer("time_bn").count == 41 * 3 * 8 * 8  # of six frames, every second one
    assert audit.network is not None
    assert audit.network.deployed is not None
    assert audit.network.deployed.samples == 41
    has_residual_of_rounding(result, layers=2)
    assert_only_statistics_became_exact(before, model, clips, default_forward)


def test_a_medical_unet_needs_nothing_but_its_loader(drawn: torch.Generator) -> None:
    """Volumes and masks in a dict, as MONAI has them; masks are no labels of samples."""
    volumes = [torch.randn(n, 1, 8, 8, 8, generator=drawn).exp() for n in SIZES]
    scans = [{"image": x, "label": (x[:, 0] > 1).long()} for x in volumes]
    model = made(UNet3d, scans)
    before = copy.deepcopy(model.state_dict())

    audit = bnaudit.measure(model, scans)
    result = bnaudit.recalibrate(model, scans, method="exact")

    assert_measured(audit, before, model, scans, default_forward)
    assert audit.network is not None
    assert audit.network.task == "other"
    assert audit.network.relative_rms is not None
    assert audit.network.relative_rms > 0.01
    has_residual_of_rounding(result, layers=10)
    assert_only_statistics_became_exact(before, model, scans, default_forward)


def test_a_network_over_sound_needs_nothing_but_its_loader(drawn: torch.Generator) -> None:
    """Waves (N, 1, L), each of a loudness of its own."""
    waves = []
    for n in SIZES:
        loudness = torch.rand(n, 1, 1, generator=drawn).exp()
        sound = torch.randn(n, 1, 256, generator=drawn) * loudness
        waves.append((sound, classes(n, drawn)))
    model = made(AudioNet, waves)
    before = copy.deepcopy(model.state_dict())

    audit = bnaudit.measure(model, waves)
    result = bnaudit.recalibrate(model, waves, method="exact")

    assert_measured(audit, before, model, waves, default_forward)
    assert [layer.count for layer in audit.audited] == [41 * 64, 41 * 16, 41 * 4]
    assert audit.network is not None
    assert audit.network.deployed is not None
    has_residual_of_rounding(result, layers=3)
    assert_only_statistics_became_exact(before, model, waves, default_forward)


def test_a_wavenet_with_a_second_input_needs_a_forward_of_one_line(drawn: torch.Generator) -> None:
    """Levels (N, L) that wander, and features (N, 3, L / 8) of what is said."""
    speech = []
    for n in SIZES:
        wave = (torch.randn(n, 96, generator=drawn).cumsum(1) / 4).tanh()
        levels = (wave * 8 + 8).long().clamp(0, 15)
        speech.append((levels, torch.randn(n, 3, 12, generator=drawn)))

    def forward(model: nn.Module, batch: Any) -> Tensor:
        return model(*batch)

    model = made(WaveNet, speech, forward)
    before = copy.deepcopy(model.state_dict())

    audit = bnaudit.measure(model, speech, forward=forward)
    result = bnaudit.recalibrate(model, speech, method="exact", forward=forward)

    assert_measured(audit, before, model, speech, forward)
    assert audit.network is not None
    assert audit.network.task == "other"  # there are scores of every position
    assert audit.data_checks.padding == ()  # zeros before the first position are no padding
    has_residual_of_rounding(result, layers=6)
    assert_only_statistics_became_exact(before, model, speech, forward)


def test_the_data_of_a_generator_are_its_latents(drawn: torch.Generator) -> None:
    """(N, 12) each, without labels: held-out ones decide by how the statistics fit."""
    latents = [torch.randn(n, 12, generator=drawn) for n in SIZES]
    others = [torch.randn(n, 12, generator=drawn) for n in SIZES]
    model = made(Generator, latents)
    before = copy.deepcopy(model.state_dict())

    audit = bnaudit.measure(model, latents)
    result = bnaudit.recalibrate(model, latents, method="exact", verify=others)

    assert_measured(audit, before, model, latents, default_forward)
    assert audit.data is not None
    assert not audit.data.labelled
    assert audit.network is not None
    assert audit.network.task == "other"
    has_residual_of_rounding(result, layers=2)
    assert result.decision.level == "better-fit"
    assert_only_statistics_became_exact(before, model, latents, default_forward)


def test_a_pointnet_that_returns_more_than_scores_needs_a_forward_of_one_line(
    drawn: torch.Generator,
) -> None:
    """Clouds (N, P, 3); layers see every point of a cloud, or one vector of it."""
    clouds = []
    for n in SIZES:
        axes = torch.rand(n, 1, 3, generator=drawn).exp()
        clouds.append((torch.randn(n, 32, 3, generator=drawn) * axes, classes(n, drawn)))

    def scores(model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0])[0]

    model = made(PointNet, clouds, scores)
    before = copy.deepcopy(model.state_dict())

    audit = bnaudit.measure(model, clouds, forward=scores)
    result = bnaudit.recalibrate(model, clouds, method="exact", forward=scores)

    assert_measured(audit, before, model, clouds, scores)
    points, vectors = audit.layer("turn.points.norms.0"), audit.layer("turn.norm")
    assert (points.count, vectors.count) == (41 * 32, 41)
    assert audit.network is not None
    assert audit.network.deployed is not None
    has_residual_of_rounding(result, layers=6)
    assert_only_statistics_became_exact(before, model, clouds, scores)
