"""A CUDA device measures what the CPU measures, and leaves the model as it was."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from alone import measure_alone
from gpu_models import generators, labelled, network, state_of
from torch import Tensor, nn

import bnaudit
from bnaudit.errors import ModelError, NonFiniteError
from bnaudit.results import Audit

pytestmark = pytest.mark.gpu

REORDERED = 1e-4
"""Sums in another order: 6e-8·√K a product of K terms, 1e-5 after eight layers; ten times that."""


def agree(one: Audit, other: Audit, tolerance: float) -> None:
    """All shifts and discrepancies, to a share of themselves and of a standard deviation."""
    assert len(one.audited) == len(other.audited) > 0
    for a, b in zip(one.audited, other.audited, strict=True):
        assert a.name == b.name
        assert a.total_shift is not None
        assert b.total_shift is not None
        for mine, theirs in (
            (a.total_shift.plain, b.total_shift.plain),
            (a.discrepancy, b.discrepancy),
            (a.batch_noise, b.batch_noise),
        ):
            assert mine == pytest.approx(theirs, rel=tolerance, abs=tolerance), a.name


@pytest.mark.usefixtures("without_tf32")
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_measures_what_the_cpu_measures(channels_last: bool) -> None:
    on_cpu = measure_alone(network(), labelled())
    on_gpu = measure_alone(network(), labelled(), device="cuda", channels_last=channels_last)
    agree(on_gpu, on_cpu, REORDERED)
    assert on_gpu.network is not None
    assert on_cpu.network is not None
    assert on_gpu.network.deployed is not None
    assert on_cpu.network.deployed is not None
    assert on_gpu.network.deployed.loss == pytest.approx(on_cpu.network.deployed.loss, rel=1e-4)


@pytest.mark.usefixtures("without_tf32")
def test_own_and_inherited_shift_are_those_of_the_cpu() -> None:
    on_cpu, on_gpu = (
        bnaudit.measure(network(), labelled(), device=device) for device in ("cpu", "cuda")
    )
    agree(on_gpu, on_cpu, REORDERED)
    for a, b in zip(on_gpu.audited, on_cpu.audited, strict=True):
        assert a.own_shift is not None
        assert b.own_shift is not None
        assert a.own_shift.plain == pytest.approx(b.own_shift.plain, rel=1e-3, abs=1e-3)
        assert a.inherited_shift == pytest.approx(b.inherited_shift, rel=1e-3, abs=1e-3)


@pytest.mark.usefixtures("without_tf32")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        # Autocast rounds weights and activations by half a step, 2⁻⁹ and 2⁻¹²; √8 layers, twice
        # that, and again twice for what is not independent.
        pytest.param("bf16", 4 * 8**0.5 * 2**-9, id="bf16"),
        pytest.param("fp16", 4 * 8**0.5 * 2**-12, id="fp16"),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_measures_the_same_within_its_rounding(
    dtype: Any, tolerance: float, channels_last: bool
) -> None:
    plain = measure_alone(network(), labelled(), device="cuda")
    half = measure_alone(
        network(), labelled(), device="cuda", dtype=dtype, channels_last=channels_last
    )
    agree(half, plain, tolerance)
    assert half.dtype == {"bf16": "bfloat16", "fp16": "float16"}[dtype]


def test_measuring_twice_gives_the_same_audit_but_for_the_time_taken(cuda: torch.device) -> None:
    model = network().to(cuda)
    one, two = (measure_alone(model, labelled()) for _ in range(2))
    assert one == two
    assert [x.total_shift for x in one.layers] == [x.total_shift for x in two.layers]


def test_batches_that_are_on_the_device_already_are_measured_as_from_the_host(
    cuda: torch.device,
) -> None:
    model = network().to(cuda)
    there = [(x.to(cuda), y.to(cuda)) for x, y in labelled()]
    one, two = measure_alone(model, labelled()), measure_alone(model, there)
    agree(one, two, 0.0)


class Faulty(nn.Module):
    """A network that ends in an error of some kind behind its first layers."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.inner, self.fault = network(), fault

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner[:4](x)
        if self.fault == "raises":
            self.inner[1].running_mean.add_(1.0)
            raise RuntimeError("a model of many faults")
        if self.fault == "interrupted":
            raise KeyboardInterrupt
        if self.fault == "overflows":
            x = x * float("inf")
        torch.rand(3, device=x.device)
        return self.inner[4:](x)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("none", None),
        ("raises", ModelError),
        ("interrupted", KeyboardInterrupt),
        ("overflows", NonFiniteError),
    ],
)
@pytest.mark.parametrize("options", [{}, {"dtype": "fp16", "channels_last": True}], ids=str)
def test_a_model_on_the_device_is_bit_for_bit_as_before(
    fault: str, error: type[BaseException] | None, options: dict[str, Any], cuda: torch.device
) -> None:
    model = Faulty(fault).to(cuda).train()
    model.inner[1].eval()
    before, dice = state_of(model), generators()
    if error is None:
        measure_alone(model, labelled(64), **options)
    else:
        with pytest.raises(error):
            measure_alone(model, labelled(64), **options)
    assert state_of(model) == before
    assert generators() == dice


def test_nothing_of_a_run_stays_on_the_device(cuda: torch.device) -> None:
    model = network()
    bnaudit.measure(model, labelled(64), device="cuda")  # workspaces of the libraries stay
    gc.collect()
    held = torch.cuda.memory_allocated(cuda)
    bnaudit.measure(model, labelled(64), device="cuda")
    gc.collect()
    assert torch.cuda.memory_allocated(cuda) == held
