"""How much of a CUDA device's memory is free for what comes."""

from __future__ import annotations

import pytest
import torch

from bnaudit.engine.memory import free_memory

GB = 10**9


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """One of 80 GB, 50 GB of them free; PyTorch has reserved 20 GB and uses 15 GB of these."""
    figures = {
        "mem_get_info": (50 * GB, 80 * GB),
        "memory_reserved": 20 * GB,
        "memory_allocated": 15 * GB,
    }
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    limit_process_to(1.0, monkeypatch)
    return torch.device("cuda")


def limit_process_to(fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(device: int) -> float:
        assert isinstance(device, int)  # it takes no device without a number
        return fraction

    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", read, raising=False)


def test_what_pytorch_has_reserved_and_does_not_use_is_free(device: torch.device) -> None:
    assert free_memory(device) == 55 * GB


def test_a_limit_on_the_process_counts(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_process_to(0.5, monkeypatch)
    assert free_memory(device) == 25 * GB  # 40 GB, of which 15 GB are used
    limit_process_to(0.95, monkeypatch)
    assert free_memory(device) == 55 * GB  # another process has the rest
    limit_process_to(0.2, monkeypatch)
    assert free_memory(device) == 5 * GB  # no more is reserved than there is


def test_versions_that_do_not_tell_the_limit_have_none(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cuda, "get_per_process_memory_fraction")
    assert free_memory(device) == 55 * GB
