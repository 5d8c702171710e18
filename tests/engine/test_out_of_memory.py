"""Memory that runs out between forwards, where moments are merged, is told as inside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from alone import NO_TRIALS, measure_alone
from population_oracle import conv, images, net, spoilt
from torch import Tensor, nn

import bnaudit
from bnaudit.engine import population
from bnaudit.engine.conditions import OutOfMemoryError
from bnaudit.errors import ModelError

ERRORS: dict[str, Callable[[], Exception]] = {
    "torch": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cublas": lambda: RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"
    ),
    "python": MemoryError,
}


@pytest.fixture
def runs_out(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Exception], int], None]:
    """`runs_out(error, n)`: the n-th population that is pooled from now on raises."""

    def arm(error: Callable[[], Exception], at: int) -> None:
        plain, calls = population.pool, []

        def pool(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) >= at:
                raise error()
            return plain(*arguments)

        monkeypatch.setattr(population, "pool", pool)

    return arm


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_memory_that_runs_out_between_forwards_gives_the_number_to_try(
    error: Callable[[], Exception], at: int, runs_out: Any
) -> None:
    model = net("residual")
    before = state(model)
    runs_out(error, at)
    with pytest.raises(OutOfMemoryError) as raised:
        bnaudit.recalibrate(model, images(64).split(16))
    message = str(raised.value)
    assert "64 samples" in message
    assert "--samples 32" in message
    assert "--method sequential" in message
    assert ("bn1" if at == 3 else "the start") in message
    after = state(model)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_measure_gives_its_audit_without_own_and_inherited_where_memory_runs_out(
    error: Callable[[], Exception], at: int, runs_out: Any
) -> None:
    expected = measure_alone(net("residual"), images(64).split(16))
    runs_out(error, at)
    audit = bnaudit.measure(net("residual"), images(64).split(16), policy=NO_TRIALS)
    assert "out of memory" in audit.attribution.note
    assert [x.total_shift for x in audit.layers] == [x.total_shift for x in expected.layers]
    assert all(x.own_shift is None for x in audit.layers)


class Twice(nn.Module):
    """From its second layer on it is done layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(3, 4), nn.BatchNorm2d(4)
        self.inner, self.norm = conv(4, 4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.stem(x)))
        for _ in range(2):
            x = self.norm(self.inner(x))
        return x.mean((2, 3))


@pytest.mark.parametrize("name", ["torch", "cublas"])
@pytest.mark.parametrize("verb", [bnaudit.recalibrate, bnaudit.measure])
def test_memory_that_runs_out_between_the_passes_of_layer_by_layer_is_told(
    name: str, verb: Callable[..., Any], runs_out: Any
) -> None:
    torch.manual_seed(0)
    model = spoilt(Twice())
    runs_out(ERRORS[name], 2)
    if verb is bnaudit.measure:
        assert "out of memory" in verb(model, images(32).split(8)).attribution.note
    else:
        with pytest.raises(ModelError, match="out of memory"):
            verb(model, images(32).split(8))
