"""How much memory is free inside a container: its limit without what its file cache can give up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bnaudit.engine import memory

CPU = torch.device("cpu")
GB = 10**9


@pytest.fixture(params=["version 1", "version 2"])
def container(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """`container(limit, usage, cache)` makes this process one of such a group, on a host with
    100 GB available. The files are those of Linux."""
    first, second = tmp_path / "cgroup" / "memory", tmp_path / "cgroup"
    first.mkdir(parents=True)
    places = {
        folder: (replacement, *names)
        for (folder, *names), replacement in zip(memory._CGROUPS, (second, first), strict=True)
    }
    monkeypatch.setattr(memory, "_CGROUPS", tuple(places.values()))
    host = SimpleNamespace(available=100 * GB)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: host)

    def make(limit: int | str, usage: int, cache: int) -> None:
        if request.param == "version 1":
            (first / "memory.limit_in_bytes").write_text(f"{limit}\n")
            (first / "memory.usage_in_bytes").write_text(f"{usage}\n")
            (first / "memory.stat").write_text(
                f"cache {cache}\ninactive_file 1\nactive_file 7\n"
                f"total_cache {cache}\ntotal_inactive_file {cache}\ntotal_active_file 7\n"
            )
        else:
            (second / "memory.max").write_text(f"{limit}\n")
            (second / "memory.current").write_text(f"{usage}\n")
            (second / "memory.stat").write_text(
                f"anon 5\nfile {cache}\ninactive_anon 3\ninactive_file {cache}\nactive_file 7\n"
            )

    return make


def test_file_cache_does_not_count_as_taken(container: Callable[..., None]) -> None:
    container(8 * GB, 7 * GB, 6 * GB)
    assert memory.free_memory(CPU) == 7 * GB


def test_what_is_taken_by_more_than_file_cache_is_not_free(container: Callable[..., None]) -> None:
    container(8 * GB, 7 * GB, 0)
    assert memory.free_memory(CPU) == 1 * GB
    container(8 * GB, 9 * GB, 0)  # usage runs over the limit for a moment
    assert memory.free_memory(CPU) == 0


def test_the_host_counts_where_it_has_less_or_the_group_has_no_limit(
    container: Callable[..., None],
) -> None:
    container("max", 7 * GB, 0)
    assert memory.free_memory(CPU) == 100 * GB
    container(2**63 - 4096, 7 * GB, 0)  # how version 1 says it
    assert memory.free_memory(CPU) == 100 * GB


def test_a_group_without_statistics_counts_all_that_is_taken(
    container: Callable[..., None], tmp_path: Path
) -> None:
    container(8 * GB, 7 * GB, 6 * GB)
    for path in tmp_path.rglob("memory.stat"):
        path.unlink()
    assert memory.free_memory(CPU) == 1 * GB


def test_outside_a_container_the_host_counts(container: Callable[..., None]) -> None:
    assert memory.free_memory(CPU) == 100 * GB
