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
        "get_per_process_memory_fraction": 1.0,
    }
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value, raising=False)
    return torch.device("cuda", 0)


def test_what_pytorch_has_reserved_and_does_not_use_is_free(device: torch.device) -> None:
    assert free_memory(device) == 55 * GB


def test_a_limit_on_the_process_counts(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(fraction: float) -> None:
        name = "get_per_process_memory_fraction"
        monkeypatch.setattr(torch.cuda, name, lambda device: fraction, raising=False)

    limit(0.5)
    assert free_memory(device) == 25 * GB  # 40 GB, of which 15 GB are used
    limit(0.95)
    assert free_memory(device) == 55 * GB  # another process has the rest
    limit(0.2)
    assert free_memory(device) == 5 * GB  # no more is reserved than there is


def test_versions_that_do_not_tell_the_limit_have_none(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cuda, "get_per_process_memory_fraction")
    assert free_memory(device) == 55 * GB
