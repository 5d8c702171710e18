"""d² is the mean squared error of the normalised activation, whatever the distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnaudit.stats.shift import (
    channel_mean,
    gamma_weighted_mean,
    squared_shift,
    unnormalised_norms,
)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mean_squared_error(
    x: np.ndarray, mean: float, var: float, estimated_mean: float, estimated_var: float, eps: float
) -> float:
    """The definition: the mean of ((x − m̂)/ŝ − (x − m)/s)² over a population (n,)."""
    deployed = (x - estimated_mean) / math.sqrt(estimated_var + eps)
    expected = (x - mean) / math.sqrt(var + eps) if var + eps > 0 else np.zeros_like(x)
    return float(((deployed - expected) ** 2).mean())


@st.composite
def values(draw: st.DrawFn) -> np.ndarray:
    """A population that is nothing like a Gaussian, of any size."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 200))
    shape = draw(st.sampled_from(["exponential", "two-valued", "uniform", "student", "constant"]))
    x = {
        "exponential": lambda: rng.exponential(size=n),
        "two-valued": lambda: rng.integers(0, 2, n).astype(float),
        "uniform": lambda: rng.uniform(-1, 3, n),
        "student": lambda: rng.standard_t(2.5, n),
        "constant": lambda: np.full(n, 0.75),
    }[shape]()
    return x * 10.0 ** draw(st.integers(-8, 8)) + draw(st.sampled_from([0.0, -2.0, 5.0]))


@given(
    x=values(),
    mean_error=st.floats(-20, 20),
    ratio=st.floats(1e-3, 1e3),
    eps=st.sampled_from([0.0, 1e-12, 1e-5, 1e-3, 1.0]),
)
def test_squared_shift_is_the_mean_squared_error_of_the_normalised_activation(
    x: np.ndarray, mean_error: float, ratio: float, eps: float
) -> None:
    # NumPy's mean of equal values is not always that value: their spread would be rounding.
    mean, var = (x[0], 0.0) if np.ptp(x) == 0 else (x.mean(), x.var())
    estimated_var = var * ratio if var > 0 else ratio
    estimated_mean = float(mean) + mean_error * math.sqrt(estimated_var)
    found = squared_shift(t(mean), t(var), t(estimated_mean), t(estimated_var), eps)
    direct = mean_squared_error(x, mean, var, estimated_mean, estimated_var, eps)
    # How far subtracting a mean that is huge against the spread loses digits in float64.
    rounding = 1e-15 * float(np.abs(x).max()) / math.sqrt(estimated_var + eps)
    assert found.total.item() == pytest.approx(direct, rel=1e-7, abs=1e-12 + rounding)
    assert found.total.item() == found.mean_part.item() + found.scale_part.item()


@given(
    m=st.floats(-1e3, 1e3),
    estimated=st.floats(-1e3, 1e3),
    v=st.floats(1e-6, 1e6),
    estimated_v=st.floats(1e-6, 1e6),
)
def test_without_eps_the_squared_shift_is_the_wasserstein_distance_over_the_estimated_variance(
    m: float, estimated: float, v: float, estimated_v: float
) -> None:
    found = squared_shift(t(m), t(v), t(estimated), t(estimated_v), 0.0).total.item()
    wasserstein = (m - estimated) ** 2 + (math.sqrt(v) - math.sqrt(estimated_v)) ** 2
    assert found == pytest.approx(wasserstein / estimated_v, rel=1e-9, abs=1e-12)


def test_a_channel_whose_estimates_are_the_truth_has_no_shift() -> None:
    m, v = t(0.0, -3.0, 1e4, 2.0), t(1.0, 1e-9, 1e9, 0.0)
    assert squared_shift(m, v, m, v, 1e-5).total.tolist() == pytest.approx([0.0] * 4, abs=1e-30)


def test_an_estimate_far_too_large_saturates_at_one_and_far_too_small_grows_without_bound() -> None:
    one = t(1.0)
    assert squared_shift(t(0.0), one, t(0.0), t(1e12), 0.0).total.item() == pytest.approx(1.0, 1e-5)
    small = squared_shift(t(0.0), one, t(0.0), t(1e-12), 0.0).total.item()
    assert small == pytest.approx(1e12, rel=1e-5)


def test_a_constant_input_has_no_scale_part_also_without_eps() -> None:
    found = squared_shift(t(1.0), t(0.0), t(3.0), t(4.0), 0.0)
    assert found.scale_part.item() == 0.0
    assert found.mean_part.item() == 1.0


@pytest.mark.parametrize(("estimated_var", "eps"), [(0.0, 0.0), (-1.0, 1e-5), (-1e-5, 1e-5)])
def test_a_channel_that_divides_by_nothing_is_undefined_and_left_out_of_averages(
    estimated_var: float, eps: float
) -> None:
    found = squared_shift(t(1.0, 1.0), t(1.0, 1.0), t(0.0, 0.0), t(estimated_var, 1.0), eps)
    assert found.mean_part.isnan().tolist() == [True, False]
    assert found.scale_part.isnan().tolist() == [True, False]
    defined = float(found.total[1])
    assert float(channel_mean(found.total)) == defined
    assert float(gamma_weighted_mean(found.total, t(5.0, 2.0))) == pytest.approx(defined, rel=1e-15)


def test_a_layer_without_a_defined_channel_has_no_mean() -> None:
    nothing = t(math.nan, math.nan)
    assert math.isnan(channel_mean(nothing))
    assert math.isnan(gamma_weighted_mean(nothing, t(1.0, 1.0)))


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(-10, 10)), min_size=1, max_size=20).filter(
        lambda pairs: sum(g * g for _, g in pairs) > 1e-12
    )
)
def test_the_output_shift_weights_each_channel_by_its_squared_gamma(
    pairs: list[tuple[float, float]],
) -> None:
    d2, gamma = np.array(pairs).T
    found = float(gamma_weighted_mean(torch.from_numpy(d2), torch.from_numpy(gamma)))
    assert found == pytest.approx(np.average(d2, weights=gamma**2), rel=1e-9)


def test_a_pruned_channel_counts_for_the_shift_and_not_for_the_output_shift() -> None:
    d2 = t(0.01, 1e8)
    assert float(gamma_weighted_mean(d2, t(1.0, 0.0))) == 0.01
    assert float(channel_mean(d2)) > 1e7
    assert math.isnan(gamma_weighted_mean(d2, t(0.0, 0.0)))


def test_averages_take_leading_dimensions() -> None:
    d2 = torch.rand(5, 7, dtype=torch.float64)
    gamma = torch.rand(7, dtype=torch.float64)
    rows = [float(gamma_weighted_mean(row, gamma)) for row in d2]
    assert gamma_weighted_mean(d2, gamma).tolist() == pytest.approx(rows, rel=1e-12)
    assert channel_mean(d2).tolist() == pytest.approx(d2.numpy().mean(1).tolist(), rel=1e-12)


def test_shifts_of_many_parts_are_computed_at_once() -> None:
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=(6, 4)), rng.exponential(size=(6, 4))
    estimates = torch.zeros(4).double(), torch.ones(4).double()
    at_once = squared_shift(torch.from_numpy(mean), torch.from_numpy(var), *estimates, 1e-5).total
    for i in range(6):
        one = squared_shift(
            torch.from_numpy(mean[i]), torch.from_numpy(var[i]), *estimates, 1e-5
        ).total
        assert torch.equal(at_once[i], one)


def test_the_unnormalised_norms_are_those_of_huang_2022() -> None:
    rng = np.random.default_rng(3)
    m, e = rng.normal(size=(2, 9))
    v, ev = rng.exponential(size=(2, 9))
    found = unnormalised_norms(*(torch.from_numpy(a) for a in (m, v, e, ev)))
    assert found == pytest.approx(
        (np.linalg.norm(e - m), np.linalg.norm(np.sqrt(ev) - np.sqrt(v))), rel=1e-12
    )
