"""What `exact` says that it needs, against what its forwards keep alive."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from alone import recalibrate_alone
from population_oracle import Dense, Residual, spoilt
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnaudit.engine.lockstep import Lockstep

SCRATCH = 2.5e6
"""Buffers of our own for sums, whatever the data: not counted as the data's need."""


class LiveBytes(TorchDispatchMode):
    """The largest sum of bytes of storages that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kw: Any = None) -> Any:
        output = function(*args, **(kw or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
                    self.peak = max(self.peak, self.live)
        return output

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def peak_and_report(
    model: nn.Module, data: Any, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[float, Any]:
    """(bytes that the forwards in lockstep and their data held at once, the report)."""
    memory, plain = LiveBytes(), Lockstep.run

    def run(self: Lockstep, *arguments: Any) -> None:
        with memory:
            plain(self, *arguments)

    monkeypatch.setattr(Lockstep, "run", run)
    report = recalibrate_alone(model, data, **options).report
    held = sum(batch.numel() * batch.element_size() for batch in data)
    return memory.peak + held, report


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (Residual, 12),
        (Dense, 4),
        pytest.param(Residual, 4, marks=pytest.mark.slow),
        pytest.param(Dense, 12, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_what_the_forwards_keep_alive(
    kind: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.rand(24, 3, 64, 64)
    peak, report = peak_and_report(spoilt(kind()), x.split(size), monkeypatch)
    print(f"{kind.__name__}, batches of {size}: {peak / report.memory.needed:.2f} of the estimate")
    assert 0.6 * report.memory.needed < peak < report.memory.needed + SCRATCH


def test_a_limit_is_kept_by_the_subset_that_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.rand(24, 3, 64, 64)
    limit = 6_000_000
    peak, report = peak_and_report(
        spoilt(Dense()), x.split(4), monkeypatch, samples=24, max_memory=limit
    )
    assert report.data.samples < 24
    unread = (24 - report.data.samples) * x[0].numel() * 4
    assert peak - unread < limit + SCRATCH


class Wide(nn.Sequential):
    """Weights of 1 MB each, activations of 2 kB a sample."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()),
            *(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 4)),
        )


ONE_BY_ONE = pytest.mark.xfail(
    strict=True, reason="of batches of one, weights cast by autocast count with every sample"
)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        *(("float32", 1), ("float32", 8), ("bf16", 8)),
        pytest.param("bf16", 1, marks=ONE_BY_ONE),
    ],
)
def test_weights_are_not_counted_with_every_sample(dtype: Any, size: int) -> None:
    """Neither as they are nor as autocast casts them."""
    torch.manual_seed(0)
    data = torch.rand(16, 512).split(size)
    memory = recalibrate_alone(spoilt(Wide()), data, dtype=dtype).report.memory
    activation = 512 * 4
    assert activation <= memory.per_sample < 6 * activation
    assert memory.needed < 16 * 6 * activation + 4 * 512 * 512 * 4


def test_half_precision_needs_less_of_each_sample() -> None:
    torch.manual_seed(0)
    data = torch.rand(16, 3, 32, 32).split(8)
    full, half = (
        recalibrate_alone(spoilt(Residual()), data, dtype=dtype).report.memory.per_sample
        for dtype in ("float32", "bf16")
    )
    assert half < full
