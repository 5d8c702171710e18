"""Loaders without end, or longer than needed: as much of them is read as is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from alone import recalibrate_alone
from tiny_models import classifier
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bnaudit.engine import memory
from bnaudit.errors import InputError
from bnaudit.verbs import calibration_memory, sources

BATCH = 8


class Endless:
    """Batches of 8 images without end; counts them. A reader that goes on for ever is stopped."""

    def __init__(self, stop: int = 400) -> None:
        self.read, self.stop = 0, stop

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        while True:
            if self.read >= self.stop:
                pytest.fail(f"{self.read} batches were read")
            self.read += 1
            yield torch.rand(BATCH, 3, 8, 8, generator=generator)


class EndlessSamples(IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield torch.rand(3, 8, 8, generator=generator)


@pytest.mark.parametrize("method", ["exact", "sequential", "precise", "ema"])
def test_a_loader_without_end_is_read_as_far_as_calibration_needs(method: Any) -> None:
    batches = Endless()
    report = recalibrate_alone(classifier(), batches, samples=64, method=method).report
    assert report.data.samples == 64
    assert batches.read <= 64 // BATCH + 1


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_a_loader_without_end_is_split_as_far_as_both_parts_need(share: float) -> None:
    batches = Endless()
    report = recalibrate_alone(
        classifier(), batches, verify_split=share, samples=64, verify_samples=64
    ).report
    assert report.data.samples == 64
    assert report.verification.data.samples == 64
    assert report.verification.overlap == 0
    smaller = min(share, 1 - share)
    assert batches.read <= 64 / BATCH / smaller + 2


def test_verification_data_without_end_are_read_as_far_as_asked() -> None:
    batches, others = Endless(), Endless()
    report = recalibrate_alone(
        classifier(), batches, verify=(x + 1 for x in others), samples=64, verify_samples=40
    ).report
    assert (report.data.samples, report.verification.data.samples) == (64, 40)
    assert max(batches.read, others.read) <= 9


def test_a_dataloader_over_an_endless_dataset_is_split() -> None:
    report = recalibrate_alone(
        classifier(),
        DataLoader(EndlessSamples(), batch_size=BATCH),
        verify_split=0.5,
        samples=64,
        verify_samples=64,
    ).report
    assert (report.data.samples, report.verification.data.samples) == (64, 64)


def with_little_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in (memory, calibration_memory, sources):
        if hasattr(module, "free_memory"):
            monkeypatch.setattr(module, "free_memory", lambda device: size)


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_a_loader_that_fills_the_memory_is_told_to_give_samples(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches = classifier(), Endless()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with_little_memory(monkeypatch, 100_000)
    with pytest.raises(InputError, match=r"goes on: give samples \(--samples\)"):
        recalibrate_alone(model, batches, method=method)
    assert batches.read * BATCH * 3 * 8 * 8 * 4 <= 100_000 + BATCH * 3 * 8 * 8 * 4
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("limits", [{}, {"samples": 64}, {"verify_samples": 64}])
def test_a_loader_that_fills_the_memory_while_it_is_split_is_told_to_give_samples(
    limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_little_memory(monkeypatch, 100_000)
    with pytest.raises(InputError, match="samples"):
        recalibrate_alone(classifier(), Endless(), verify_split=0.5, **limits)
