"""How runs are read on a device: the same functions on CPU tensors, against NumPy in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from run_oracle import BOUNDS, SHAPES, channels_innermost, errors, skewed
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bnaudit.stats import kernels


def fused(x: Tensor, bounds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    x = x.unsqueeze(-1) if x.dim() == 2 else x
    row = x[0, 0].numel()
    return kernels._fused_cuda(x, bounds, [(b - a) * row for a, b in pairwise(bounds)])


@pytest.mark.parametrize("small_run", [1, 2**40], ids=["large runs", "small runs"])
def test_every_run_has_its_moments_however_runs_are_read(
    small_run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shapes, lengths of runs and layouts. On the CPU the kernel behind train mode is exact for
    contiguous inputs; in channels_last it accumulates in float32, for so few elements to 1e-5."""
    monkeypatch.setattr(kernels, "LONE_RUN", small_run)
    for shape in SHAPES.values():
        for dtype, limit in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            x = skewed(shape).to(dtype)
            for arranged in (x, channels_innermost(x)):
                contiguous = arranged.is_contiguous() or dtype == torch.float64
                for name, bounds in BOUNDS.items():
                    mean, m2 = fused(arranged, bounds)
                    assert mean.shape == m2.shape == (len(bounds) - 1, shape[1])
                    assert mean.dtype == dtype
                    found = errors(arranged, bounds, mean, m2)
                    assert max(found) < (limit if contiguous else 1e-5), (shape, dtype, name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("at_once", [1, 2000, 2**22])
def test_half_precision_read_together_is_accumulated_in_float32(
    dtype: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs are cast at once."""
    monkeypatch.setattr(kernels, "CAST_ELEMENTS", at_once)
    bounds = BOUNDS["equal runs"]
    x = skewed(SHAPES["4-D"]).to(dtype)
    for arranged in (x, x.contiguous(memory_format=torch.channels_last)):
        mean, m2 = fused(arranged, bounds)
        assert mean.dtype == m2.dtype == torch.float32
        assert max(errors(arranged, bounds, mean, m2)) < 1e-6


def test_a_value_that_is_not_finite_shows_in_its_run_and_channel_alone() -> None:
    x = torch.randn(6, 3, 2, 2)
    x[4, 1, 0, 1] = torch.inf
    mean, m2 = fused(x, (0, 2, 4, 6))
    finite = mean.isfinite() & m2.isfinite()
    assert finite.tolist() == [[True] * 3, [True] * 3, [True, False, True]]


class Launches(TorchDispatchMode):
    """Counts the operations that are no views: on a device each is a kernel, or a few."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kw: Any = None) -> Any:
        self.number += not function.is_view
        return function(*args, **(kw or {}))


def launches(x: Tensor, bounds: tuple[int, ...]) -> int:
    with Launches() as counted:
        fused(x, bounds)
    return counted.number


def test_a_batch_of_small_runs_is_read_by_as_few_kernels_as_one_run() -> None:
    """One reduction and one product by the count; half precision is cast before."""
    x = torch.randn(32, 64, 7, 7)
    sixteen = tuple(range(0, 33, 2))
    assert launches(x, sixteen) == 2
    assert launches(x.bfloat16(), sixteen) == 3
    assert launches(x, (0, 32)) == 2
    assert launches(x, (*range(0, 32, 3), 32)) == 6  # ten of 3 and one of 2, put together


def test_a_large_run_is_read_by_a_kernel_of_its_own() -> None:
    """As it is: a copy of it in float32 would cost more than the launch."""
    rows = 2 * kernels.LONE_RUN // (64 * 64 * 64)
    x = torch.zeros(1, 64, 64, 64, dtype=torch.bfloat16).expand(2 * rows, -1, -1, -1)
    with Launches() as counted:
        fused(x, (0, rows, 2 * rows))
    assert counted.number == 2 + 2 + 1  # two runs, stacked twice, one product


def test_all_runs_together_have_the_moments_of_one() -> None:
    """Whatever their lengths, and far from zero; in float64, like the runs."""
    for offset in (3.0, 1e4):
        x = skewed(SHAPES["4-D"], offset).double()
        expected = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        for bounds in BOUNDS.values():
            mean, m2 = fused(x, bounds)
            counts = tuple((b - a) * 99 for a, b in pairwise(bounds))
            whole = kernels.RunMoments(counts, mean, m2).whole()
            torch.testing.assert_close(whole, expected, rtol=1e-10, atol=0)
