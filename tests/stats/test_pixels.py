"""Encodings of pixels and changes of their layout, against torchvision and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import Normalize

from bnaudit.stats.pixels import (
    IMAGENET,
    Constants,
    Encoding,
    channels_reversed,
    inverted,
    roughness,
    rows_and_columns_swapped,
    spread,
    transposed_not_reshaped,
)

UNIT = Encoding.unit(3)


@pytest.fixture
def pixels() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 5, 4), generator=draw).float() / 255


def test_an_encoding_normalises_as_torchvision_does(pixels: Tensor) -> None:
    normalise = Normalize(IMAGENET.mean, IMAGENET.std)
    once = UNIT.normalised(IMAGENET)
    assert torch.allclose(once.encode(pixels), normalise(pixels), atol=1e-6)
    twice = once.normalised(IMAGENET)
    assert torch.allclose(twice.encode(pixels), normalise(normalise(pixels)), atol=1e-5)
    bytes_ = UNIT.times(255).normalised(IMAGENET)
    assert torch.allclose(bytes_.encode(pixels), normalise(255 * pixels), atol=1e-3)


@pytest.mark.parametrize(
    "encoding",
    [
        UNIT,
        UNIT.times(255),
        UNIT.normalised(IMAGENET),
        UNIT.normalised(IMAGENET).reversed(),
        UNIT.times(255).minus((103.9, 116.8, 123.7)),
        UNIT.normalised(Constants("half", (0.5,) * 3, (0.5,) * 3)).times(3),
    ],
)
def test_decoding_undoes_encoding(encoding: Encoding, pixels: Tensor) -> None:
    assert torch.allclose(encoding.decode(encoding.encode(pixels)), pixels, atol=1e-6)


def test_a_layout_by_numpy_is_undone(pixels: Tensor) -> None:
    """What people do to an array (H, W, C) instead of a transpose."""
    image = pixels[0]
    array = image.numpy().transpose(1, 2, 0)
    reshaped = torch.from_numpy(np.ascontiguousarray(array)).reshape(3, 5, 4)
    assert not torch.equal(reshaped, image)
    assert torch.equal(transposed_not_reshaped(reshaped), image)
    assert torch.equal(transposed_not_reshaped(torch.stack([reshaped] * 2))[1], image)
    square = torch.rand(2, 3, 4, 4)
    assert torch.equal(rows_and_columns_swapped(square), square.transpose(2, 3))


def test_changes_that_are_their_own_way_back(pixels: Tensor) -> None:
    assert torch.equal(channels_reversed(channels_reversed(pixels)), pixels)
    assert torch.equal(channels_reversed(pixels)[:, 0], pixels[:, 2])
    assert torch.allclose(inverted(inverted(pixels)), pixels, atol=1e-6)


def test_whole_levels_show_under_the_encoding_that_was_used_alone(pixels: Tensor) -> None:
    by_imagenet = UNIT.normalised(IMAGENET)
    values = Normalize(IMAGENET.mean, IMAGENET.std)(pixels)
    assert spread(values, by_imagenet).whole_levels == 1.0
    for other in (UNIT, by_imagenet.reversed(), by_imagenet.normalised(IMAGENET)):
        whole = spread(values, other).whole_levels
        assert whole is not None
        assert whole < 0.4  # green is the middle one in either order
    resized = torch.nn.functional.avg_pool2d(values, 2)
    whole = spread(resized, by_imagenet).whole_levels
    assert whole is not None
    assert whole < 0.5


def test_half_precision_is_too_coarse_for_levels(pixels: Tensor) -> None:
    values = UNIT.normalised(IMAGENET).encode(pixels)
    assert spread(values.half(), UNIT.normalised(IMAGENET)).whole_levels is None
    assert spread(values.bfloat16(), UNIT.normalised(IMAGENET)).whole_levels is None


def test_the_range_of_pixels_leaves_out_one_in_a_thousand() -> None:
    values = torch.linspace(0, 1, 3 * 10_000).view(1, 3, 1, 10_000)
    found = spread(values, UNIT)
    assert found.low == pytest.approx(np.quantile(values.numpy(), 0.001), abs=1e-4)
    assert found.high == pytest.approx(np.quantile(values.numpy(), 0.999), abs=1e-4)


def test_noise_is_rough_and_a_gradient_is_smooth() -> None:
    draw = torch.Generator().manual_seed(0)
    assert roughness(torch.randn(4, 3, 32, 32, generator=draw)) == pytest.approx(1, abs=0.05)
    assert roughness(torch.linspace(0, 1, 32).expand(4, 3, 32, 32)) < 0.01
    assert roughness(torch.ones(1, 3, 4, 4)) == 0
