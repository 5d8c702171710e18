"""What the moments kernel promises, against NumPy in float64 on the same values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from bnaudit.stats.kernels import RunMoments, Scratch, accumulation_dtype, run_moments

SHAPES = {
    2: (64, 5),
    3: (16, 5, 33),
    4: (12, 5, 9, 11),
    5: (6, 5, 3, 7, 9),
}


def oracle(x: Tensor, bounds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each run, (S, C) in float64."""
    values = x.double().cpu().numpy()
    axes = (0, *range(2, values.ndim))
    runs = [values[start:stop] for start, stop in pairwise(bounds)]
    return np.stack([r.mean(axes) for r in runs]), np.stack([r.var(axes) for r in runs])


def errors(x: Tensor, bounds: Sequence[int], found: RunMoments) -> tuple[float, float]:
    """(largest error of a mean in standard deviations, largest relative error of a variance)."""
    mean, var = oracle(x, bounds)
    count = np.array(found.counts, dtype=float)[:, None]
    found_var = found.m2.double().cpu().numpy() / count
    of_mean = np.abs(found.mean.double().cpu().numpy() - mean) / np.sqrt(var)
    return float(of_mean.max()), float((np.abs(found_var - var) / var).max())


def channels_of_many_sizes(shape: Sequence[int], seed: int = 0) -> Tensor:
    """Skewed values; channel c has standard deviation 10^(c − 2) and lies c of them from zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    x = x + 0.3 * x.square()
    c = torch.arange(shape[1]).view(1, -1, *[1] * (len(shape) - 2))
    return (x + c) * 10.0 ** (c - 2)


@pytest.fixture(scope="module")
def two_million_a_channel() -> Tensor:
    return channels_of_many_sizes((32, 3, 250, 250))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_of_two_million_elements_a_channel_are_exact_to_one_in_a_million(
    two_million_a_channel: Tensor, layout: torch.memory_format
) -> None:
    x = two_million_a_channel.contiguous(memory_format=layout)
    of_mean, of_var = errors(x, (0, 32), run_moments(x, (0, 32), Scratch()))
    assert of_mean < 1e-6
    assert of_var < 1e-6


@pytest.mark.parametrize(
    "shape", [(2, 2, 1000, 1000), (2, 3, 700_000), (1, 2, 40, 150, 160), (500_000, 2)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_rows_larger_than_the_scratch_buffer_and_very_many_rows_are_as_exact(
    shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> None:
    x = channels_of_many_sizes(shape).to(dtype)
    if channels_last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    bounds = (0, shape[0] // 2, shape[0]) if shape[0] > 1 else (0, 1)
    of_mean, of_var = errors(x, bounds, run_moments(x, bounds, Scratch()))
    assert of_mean < 1e-6
    assert of_var < 1e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_hold_to_one_in_a_thousand_ten_thousand_standard_deviations_from_zero(
    two_million_a_channel: Tensor, layout: torch.memory_format
) -> None:
    x = (two_million_a_channel[:, :1] * 100 + 10_000).contiguous(memory_format=layout)
    of_mean, of_var = errors(x, (0, 32), run_moments(x, (0, 32), Scratch()))
    assert of_mean < 1e-3
    assert of_var < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_inputs_are_accumulated_in_float32_or_better(
    two_million_a_channel: Tensor, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = two_million_a_channel[:8].to(dtype).contiguous(memory_format=layout)
    found = run_moments(x, (0, 8), Scratch())
    of_mean, of_var = errors(x, (0, 8), found)
    assert found.mean.dtype in (torch.float32, torch.float64)
    assert of_mean < 1e-6
    assert of_var < 1e-6


def test_half_precision_values_whose_squares_overflow_are_measured() -> None:
    x = torch.tensor([[-60_000.0], [60_000.0]], dtype=torch.float16)
    found = run_moments(x, (0, 2), Scratch())
    assert found.m2.item() == pytest.approx(2 * 60_000.0**2, rel=1e-3)  # fp16 rounds the values
    assert errors(x, (0, 2), found)[1] < 1e-6


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_of_two_to_five_dimensions_are_measured(dims: int, dtype: torch.dtype) -> None:
    x = channels_of_many_sizes(SHAPES[dims]).to(dtype)
    bounds = (0, 1, 4, x.shape[0]) if dims > 2 else (0, 3, x.shape[0])
    of_mean, of_var = errors(x, bounds[1:], run_moments(x[bounds[1] :], _shift(bounds), Scratch()))
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    assert of_mean < limit
    assert of_var < limit


def _shift(bounds: Sequence[int]) -> tuple[int, ...]:
    return tuple(b - bounds[1] for b in bounds[1:])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_run_between_bounds_has_its_own_moments(layout: torch.memory_format) -> None:
    x = channels_of_many_sizes((97, 4, 8, 8)).contiguous(memory_format=layout)
    cuts = np.random.default_rng(0).choice(np.arange(1, 97), 40, replace=False)
    bounds = (0, *sorted(int(c) for c in cuts), 97)
    found = run_moments(x, bounds, Scratch())
    assert found.counts == tuple((b - a) * 64 for a, b in pairwise(bounds))
    # A pilot from another run costs a few digits of a run's own mean, never a part in 10⁵.
    of_mean, of_var = errors(x, bounds, found)
    assert of_mean < 1e-5
    assert of_var < 1e-5


def test_the_size_of_the_scratch_buffer_changes_nothing() -> None:
    x = channels_of_many_sizes((10, 3, 20, 20))
    small = run_moments(x, (0, 4, 10), Scratch(1))
    large = run_moments(x, (0, 4, 10), Scratch(2**22))
    torch.testing.assert_close(small.mean, large.mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(small.m2, large.m2, rtol=1e-6, atol=1e-12)


def test_a_scratch_buffer_serves_inputs_of_any_shape_and_dtype_in_turn() -> None:
    scratch = Scratch()
    for shape in [*SHAPES.values(), (3, 5, 100, 101)]:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = channels_of_many_sizes(shape).to(dtype)
            used = run_moments(x, (0, shape[0]), scratch)
            fresh = run_moments(x, (0, shape[0]), Scratch())
            assert torch.equal(used.mean, fresh.mean)
            assert torch.equal(used.m2, fresh.m2)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, ::2, 1:],
        lambda x: x.transpose(2, 3),
        lambda x: x[:, 1:4],
        lambda x: x.permute(0, 2, 3, 1).contiguous().movedim(-1, 1),
        lambda x: x.expand(-1, -1, -1, -1)[::3],
        lambda x: x[:1].expand(4, -1, -1, -1),
    ],
    ids=["strided", "transposed", "channels cut", "NHWC moved", "rows skipped", "expanded"],
)
def test_views_of_any_strides_are_measured(view: object) -> None:
    x = view(channels_of_many_sizes((12, 5, 10, 12)))  # type: ignore[operator]
    of_mean, of_var = errors(x, (0, len(x)), run_moments(x, (0, len(x)), Scratch()))
    assert of_mean < 1e-6
    assert of_var < 1e-6


def test_a_constant_channel_has_variance_zero() -> None:
    x = torch.full((4, 2, 3, 3), 7.25)
    found = run_moments(x, (0, 2, 4), Scratch())
    assert torch.equal(found.mean.double(), torch.full((2, 2), 7.25, dtype=torch.float64))
    assert torch.equal(found.m2.double(), torch.zeros(2, 2, dtype=torch.float64))


def test_a_single_value_a_channel_has_variance_zero() -> None:
    x = torch.randn(1, 4)
    found = run_moments(x, (0, 1), Scratch())
    torch.testing.assert_close(found.mean[0].float(), x[0])
    assert found.counts == (1,)
    assert not found.m2.any()


def test_an_outlier_in_the_first_row_does_not_spoil_the_variance() -> None:
    """The kernel subtracts the first row's mean: here that is 60 standard deviations away."""
    x = torch.randn(4096, 3, generator=torch.Generator().manual_seed(0))
    x[0] = 1000.0
    of_mean, of_var = errors(x, (0, 4096), run_moments(x, (0, 4096), Scratch()))
    assert of_mean < 1e-5
    assert of_var < 1e-4


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_shows_in_the_moments_of_its_run_and_channel(bad: float) -> None:
    x = torch.randn(6, 3, 2, 2)
    x[4, 1, 0, 1] = bad
    found = run_moments(x, (0, 3, 6), Scratch())
    finite = found.mean.isfinite() & found.m2.isfinite()
    assert finite.tolist() == [[True, True, True], [True, False, True]]


def test_the_input_is_not_changed() -> None:
    x = torch.randn(8, 3, 5, 5)
    before = x.clone()
    run_moments(x, (0, 5, 8), Scratch())
    assert torch.equal(x, before)


def test_an_autocast_around_the_kernel_changes_nothing() -> None:
    x = channels_of_many_sizes((8, 3, 20, 20))
    plain = run_moments(x, (0, 8), Scratch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = run_moments(x, (0, 8), Scratch())
    assert torch.equal(plain.mean, cast.mean)
    assert torch.equal(plain.m2, cast.m2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nothing_is_accumulated_below_float32(dtype: torch.dtype) -> None:
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert accumulation_dtype(dtype) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cuda_moments_of_two_million_elements_a_channel(
    two_million_a_channel: Tensor, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = two_million_a_channel.to("cuda", dtype).contiguous(memory_format=layout)
    bounds = (0, 7, 32)
    of_mean, of_var = errors(x, bounds, run_moments(x, bounds, Scratch()))
    assert of_mean < 1e-6
    assert of_var < 1e-6


@pytest.mark.gpu
def test_a_constant_channel_has_variance_zero_on_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = torch.full((4, 2, 3, 3), 7.25, device="cuda")
    assert not run_moments(x, (0, 4), Scratch()).m2.any()
