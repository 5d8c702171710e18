"""A CUDA device finds the statistics that the CPU finds, by every method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from alone import recalibrate_alone
from gpu_models import generators, labelled, network, state_of
from torch import Tensor

pytestmark = pytest.mark.gpu

REORDERED = 1e-4
"""Sums in another order, in standard deviations: see `test_measure_on_cuda`."""


def apart(a: Mapping[str, tuple[Tensor, Tensor]], b: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    """The largest difference of a mean or a deviation, in standard deviations of `b`."""
    assert a.keys() == b.keys()
    assert a
    worst = 0.0
    for name, (mean, var) in b.items():
        s = (var + 1e-5).sqrt()
        of_mean, of_deviation = (a[name][0] - mean) / s, (a[name][1].sqrt() - var.sqrt()) / s
        worst = max(worst, float(of_mean.abs().max()), float(of_deviation.abs().max()))
    return worst


@pytest.mark.usefixtures("without_tf32")
@pytest.mark.parametrize("method", ["exact", "sequential", "precise", "ema"])
def test_a_gpu_finds_the_statistics_of_the_cpu(method: Any) -> None:
    on_cpu, on_gpu = (
        recalibrate_alone(network(), labelled(), method=method, device=device)
        for device in ("cpu", "cuda")
    )
    assert on_gpu.report.method == method
    assert apart(on_gpu.statistics, on_cpu.statistics) < REORDERED


@pytest.mark.parametrize("dtype", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_exact_is_what_sequential_finds_on_the_same_device(
    dtype: Any, channels_last: bool, cuda: torch.device
) -> None:
    """The same forwards, batch by batch: the same kernels on the same values. The residual is what
    a forward sees of the statistics as the buffers hold them, in float32."""
    options = {"dtype": dtype, "channels_last": channels_last}
    one, other = (
        recalibrate_alone(network().to(cuda), labelled(), method=method, **options)
        for method in ("exact", "sequential")
    )
    half_step = {"float32": 2**-24, "bf16": 2**-9, "fp16": 2**-12}[dtype]
    # Where a kernel is chosen anew, its sums are in another order, and a value at the edge between
    # two steps falls to the other side: few of thousands.
    assert apart(one.statistics, other.statistics) < max(1e-5, half_step / 8)
    assert one.report.residual is not None
    assert one.report.residual < max(1e-5, half_step / 8)


def test_statistics_are_written_into_the_buffers_on_the_device_and_nothing_else_changes(
    cuda: torch.device,
) -> None:
    model = network().to(cuda).train()
    before, dice = state_of(model), generators()
    result = recalibrate_alone(model, labelled(), verify=labelled(96))
    changed = {key for key, value in state_of(model).items() if value != before[key]}
    if result.applied:
        assert changed
        assert all(key.rstrip(":").endswith(("running_mean", "running_var")) for key in changed)
        after = state_of(model)
        assert all(after[key][:5] == before[key][:5] for key in changed)  # the same storages
        result.revert()
    assert state_of(model) == before
    assert generators() == dice
