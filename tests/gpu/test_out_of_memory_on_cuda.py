"""A device that is too small: what is said, what is done instead, and what is left of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from alone import recalibrate_alone
from gpu_models import generators, state_of
from torch import Tensor, nn

from bnaudit.engine.conditions import OutOfMemoryError

pytestmark = pytest.mark.gpu


@pytest.fixture
def limit(cuda: torch.device) -> Iterator[Callable[[int], None]]:
    """`limit(bytes)`: PyTorch may take so much more of the device from now on."""

    def leave(size: int) -> None:
        torch.cuda.empty_cache()
        taken = torch.cuda.memory_reserved(cuda)
        total = torch.cuda.get_device_properties(cuda).total_memory
        torch.cuda.set_per_process_memory_fraction((taken + size) / total, cuda)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0, cuda)


def wide() -> nn.Module:
    """13 MB of activations a sample at every layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
        *(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)),
    )
    return model.eval()


def images() -> list[Tensor]:
    """1.6 GB of activations a layer, 51 MB a batch."""
    return list(torch.rand(128, 3, 224, 224, generator=torch.Generator().manual_seed(0)).split(4))


def test_exact_says_how_many_samples_to_try_and_leaves_nothing_behind(
    cuda: torch.device, limit: Callable[[int], None]
) -> None:
    model = wide().to(cuda)
    recalibrate_alone(model, images()[:2], force=True).revert()  # workspaces of the libraries stay
    before, dice, held = state_of(model), generators(), torch.cuda.memory_allocated(cuda)
    limit(800_000_000)
    with pytest.raises(OutOfMemoryError, match=r"of 128 samples .*try --samples \d+"):
        recalibrate_alone(model, images(), max_memory="100GB")
    gc.collect()
    assert torch.cuda.memory_allocated(cuda) < held + 1_000_000  # a batch would be 51 MB
    assert state_of(model) == before
    assert generators() == dice
    assert recalibrate_alone(model, images()[:2]).report.method == "exact"


def test_what_does_not_fit_is_foreseen(cuda: torch.device, limit: Callable[[int], None]) -> None:
    """Of all samples, layer by layer; of a number, as many of them as fit."""
    model = wide().to(cuda)
    limit(800_000_000)
    report = recalibrate_alone(model, images()).report
    assert report.method == "sequential"
    assert any("layer by layer instead" in note for note in report.notes)
    report = recalibrate_alone(model, images(), samples=128).report
    assert report.method == "exact"
    assert report.data.samples < 128


def test_a_batch_that_does_not_fit_is_told(
    cuda: torch.device, limit: Callable[[int], None]
) -> None:
    model = wide().to(cuda)
    limit(300_000_000)
    whole = torch.cat(images()[:16])
    with pytest.raises(OutOfMemoryError, match="--batch-size"):
        recalibrate_alone(model, [whole], method="precise")
