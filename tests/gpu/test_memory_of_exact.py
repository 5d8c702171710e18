"""What `exact` says that it needs, within 20% of what the allocators give out at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from alone import recalibrate_alone
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torchvision.models.resnet import Bottleneck, ResNet

from bnaudit.engine.lockstep import Lockstep

CASES = [("float32", False), ("bf16", False), ("float32", True)]
NAMES = ["float32", "bf16", "channels_last"]


def images(n: int, size: int) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def watch_lockstep(monkeypatch: pytest.MonkeyPatch, watch: Callable[[], Any]) -> None:
    """The forwards that advance together run inside a context of `watch()`."""
    plain = Lockstep.run

    def run(self: Lockstep, *arguments: Any, **named: Any) -> None:
        with watch():
            plain(self, *arguments, **named)

    monkeypatch.setattr(Lockstep, "run", run)


def allocated_at_most(profiled: profile) -> int:
    """The most bytes that PyTorch's CPU allocator gave out at once."""
    live = peak = 0
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize(("dtype", "channels_last"), CASES, ids=NAMES)
def test_the_estimate_is_within_a_fifth_of_what_the_cpus_allocator_gives_out(
    dtype: Any, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small ResNet with bottlenecks; the data are with the caller already, and count too."""
    torch.manual_seed(0)
    model = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10).eval()
    x = images(24, 96)
    profiles: list[profile] = []

    def watch() -> profile:
        profiles.append(profile(activities=[ProfilerActivity.CPU], profile_memory=True))
        return profiles[-1]

    watch_lockstep(monkeypatch, watch)
    report = recalibrate_alone(model, x.split(8), dtype=dtype, channels_last=channels_last).report
    assert report.method == "exact"
    (profiled,) = profiles
    peak = allocated_at_most(profiled) + x.numel() * x.element_size()
    print(f"{os.linesep}{dtype}: {report.memory.needed / peak:.2f} of the peak")
    assert abs(report.memory.needed - peak) < 0.2 * peak


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "channels_last"), CASES, ids=NAMES)
def test_the_estimate_is_within_a_fifth_of_the_peak_on_a_gpu(
    dtype: Any, channels_last: bool, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet-50 on 256 images of 224×224: 1.8 GB in float32, beside which the workspaces of cuDNN
    weigh little. The model is there already; the data come, batch by batch, from the host."""
    from torchvision.models import resnet50

    if torch.cuda.mem_get_info(cuda)[0] < 6e9:
        pytest.skip("less than 6 GB of memory are free")
    torch.manual_seed(0)
    model: nn.Module = resnet50(weights=None).eval().to(cuda)
    x = images(256, 224)
    with torch.no_grad():
        model(x[:16].to(cuda))  # handles and workspaces of the libraries stay
    peaks: list[int] = []

    class Watch:
        def __enter__(self) -> None:
            torch.cuda.synchronize(cuda)
            torch.cuda.reset_peak_memory_stats(cuda)
            self.held = torch.cuda.memory_allocated(cuda)

        def __exit__(self, *exception: object) -> None:
            peaks.append(torch.cuda.max_memory_allocated(cuda) - self.held)

    watch_lockstep(monkeypatch, Watch)
    report = recalibrate_alone(model, x.split(16), dtype=dtype, channels_last=channels_last).report
    assert report.method == "exact"
    (peak,) = peaks
    print(f"{os.linesep}{dtype}: {report.memory.needed / peak:.2f} of the peak")
    assert abs(report.memory.needed - peak) < 0.2 * peak
