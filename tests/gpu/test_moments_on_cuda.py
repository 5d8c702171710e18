"""The moments of a layer's input as a CUDA device computes them, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from run_oracle import BOUNDS, SHAPES, channels_innermost, errors, skewed
from torch import Tensor

from bnaudit.stats import kernels
from bnaudit.stats.kernels import Scratch, run_moments

pytestmark = pytest.mark.gpu

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

ROUNDING = {torch.float64: 1e-12}
"""In units of the standard deviation; elsewhere sums are float32's: some roundings of 6e-8."""


@pytest.mark.parametrize("small_run", [1, 2**40], ids=["large runs", "small runs"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_run_has_its_moments(
    dtype: torch.dtype, small_run: int, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shapes, layouts and lengths of runs; the oracle sees the rounded values."""
    monkeypatch.setattr(kernels, "LONE_RUN", small_run)
    for shape in SHAPES.values():
        x = skewed(shape).to(dtype).to(cuda)
        for arranged in (x, channels_innermost(x)):
            before = arranged.clone()
            for name, bounds in BOUNDS.items():
                found = run_moments(arranged, bounds, Scratch())
                assert found.mean.device == found.m2.device == cuda
                assert found.mean.dtype == kernels.accumulation_dtype(dtype)
                off = errors(arranged, bounds, found.mean, found.m2)
                assert max(off) < ROUNDING.get(dtype, 1e-6), (shape, name)
            assert torch.equal(arranged, before)


@pytest.mark.parametrize("small_run", [1, 2**40], ids=["large runs", "small runs"])
def test_moments_ten_thousand_standard_deviations_from_zero_hold(
    small_run: int, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There float32 has steps of 2⁻¹⁰ standard deviations: a running mean may be four of them off,
    and a variance twice as much of itself, through its square."""
    monkeypatch.setattr(kernels, "LONE_RUN", small_run)
    x = skewed((32, 3, 64, 64), offset=1e4).to(cuda)
    for arranged in (x, channels_innermost(x)):
        for bounds in ((0, 32), tuple(range(0, 33, 4))):
            found = run_moments(arranged, bounds, Scratch())
            of_mean, of_var = errors(arranged, bounds, found.mean, found.m2)
            assert of_mean < 4 * 2**-10
            assert of_var < 8 * 2**-10


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, ::2, 1:],
        lambda x: x.transpose(2, 3),
        lambda x: x[:, 1:4],
        lambda x: x[::3],
        lambda x: x[:1].expand(32, -1, -1, -1),
        lambda x: x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2),
    ],
    ids=["strided", "transposed", "channels cut", "rows skipped", "expanded", "channels last, 3-D"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_views_of_any_strides_are_measured(
    view: Callable[[Tensor], Tensor], dtype: torch.dtype, cuda: torch.device
) -> None:
    x = view(skewed(SHAPES["4-D"]).to(dtype).to(cuda))
    for bounds in ((0, len(x)), (0, 1, 3, len(x)), tuple(range(0, len(x) + 1, 2))):
        found = run_moments(x, bounds, Scratch())
        assert max(errors(x, bounds, found.mean, found.m2)) < 1e-6


def test_very_many_runs_are_measured(cuda: torch.device) -> None:
    x = skewed((4000, 5, 6, 6)).to(cuda)
    bounds = tuple(range(0, 4001, 2))
    found = run_moments(x, bounds, Scratch())
    assert max(errors(x, bounds, found.mean, found.m2)) < 1e-6
    mean, var = found.whole()
    assert mean.device == var.device == cuda
    wide = x.double()
    torch.testing.assert_close(mean, wide.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(var, wide.var((0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_the_same_values_give_the_same_moments_bit_for_bit(cuda: torch.device) -> None:
    """No sum depends on which thread comes first."""
    x = skewed(SHAPES["4-D"]).to(cuda)
    for bounds in BOUNDS.values():
        one, two = (run_moments(x, bounds, Scratch()) for _ in range(2))
        assert torch.equal(one.mean, two.mean)
        assert torch.equal(one.m2, two.m2)


def test_half_precision_values_whose_squares_overflow_are_measured(cuda: torch.device) -> None:
    x = torch.tensor([[-60_000.0], [60_000.0]] * 8, dtype=torch.float16, device=cuda)
    for bounds in ((0, 16), tuple(range(0, 17, 4))):
        found = run_moments(x, bounds, Scratch())
        assert max(errors(x, bounds, found.mean, found.m2)) < 1e-6


def test_constant_channels_and_single_values_have_variance_zero(cuda: torch.device) -> None:
    x = torch.full((8, 2, 3, 3), 7.25, device=cuda)
    for bounds in ((0, 8), (0, 2, 4, 6, 8), (0, 3, 8)):
        found = run_moments(x, bounds, Scratch())
        assert not found.m2.any()
        assert bool((found.mean == 7.25).all())
    single = run_moments(torch.randn(6, 4, device=cuda), tuple(range(7)), Scratch())
    assert not single.m2.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_shows_in_its_run_and_channel_alone(
    bad: float, cuda: torch.device
) -> None:
    x = torch.randn(6, 3, 2, 2, device=cuda)
    x[4, 1, 0, 1] = bad
    for bounds in ((0, 2, 4, 6), (0, 3, 4, 6)):
        found = run_moments(x, bounds, Scratch())
        finite = found.mean.isfinite() & found.m2.isfinite()
        assert finite.tolist() == [[True] * 3, [True] * 3, [True, False, True]]


def test_an_autocast_around_the_kernels_changes_nothing(cuda: torch.device) -> None:
    x = skewed(SHAPES["4-D"]).to(cuda)
    for bounds in BOUNDS.values():
        plain = run_moments(x, bounds, Scratch())
        with torch.autocast("cuda", dtype=torch.bfloat16):
            cast = run_moments(x, bounds, Scratch())
        assert torch.equal(plain.mean, cast.mean)
        assert torch.equal(plain.m2, cast.m2)
