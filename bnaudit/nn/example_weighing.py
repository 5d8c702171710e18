"""BatchNorm that counts the example itself into the statistics that it is normalised by.

In training a layer's statistics contain the example; at inference they do not. Summers 2020
(inference example weighing) mixes it in again, with a weight that is chosen after training.
"""

from __future__ import annotations

from torch import Tensor


def example_weighed(
    mean_i: Tensor, var_i: Tensor, running_mean: Tensor, running_var: Tensor, alpha: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The statistics by which an example is normalised: (m_i, v_i), of the shape of `mean_i`.

    `mean_i`, `var_i`: mean and *biased* variance of each example's own values, (N, C).
    `running_mean`, `running_var`: the estimates, (C,). Everything broadcasts, so other shapes that
    do will serve; `alpha`, the example's weight in [0, 1], may be a tensor too. With a = alpha:

        m_i = a·E[x_i] + (1−a)·m̂
        v_i = a·Var[x_i] + (1−a)·v̂ + a·(1−a)·(E[x_i] − m̂)²

    The second line is the variance of the mixture, a·E[x_i²] + (1−a)·(v̂ + m̂²) − m_i² of Summers
    2020, without the difference of two large numbers. a = 0 gives the estimates, a = 1 what
    Instance Norm takes.
    """
    between = mean_i - running_mean
    mean = running_mean + alpha * between
    var = alpha * var_i + (1 - alpha) * running_var + alpha * (1 - alpha) * between.square()
    return mean, var
