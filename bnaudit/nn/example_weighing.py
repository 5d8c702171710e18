"""BatchNorm that counts the example itself into the statistics that it is normalised by.

In training a layer's statistics contain the example; at inference they do not. Summers 2020
(section on inference example weighing) mixes it in again, with a weight that is chosen after
training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.nn.parts import NormThenParts


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


class ExampleWeighingBatchNorm(NormThenParts, _BatchNorm):
    """In `eval()`, normalises each example by its own moments mixed into the estimates.

    With m_i, v_i (N, C) from `example_weighed`, over the positions of an example:

        y_i = γ·(x_i − m_i)/√(v_i + ε) + β

    Training is plain BatchNorm, `alpha` = 0 is plain BatchNorm bit for bit, and the state dict is
    BatchNorm's: `alpha` is an attribute of the module, not in the state dict, and can be changed at
    any time. Shapes and other arguments as in `torch.nn.BatchNorm`. Half-precision inputs are
    normalised in float32. Without running statistics there is nothing to mix with: plain BatchNorm.

    An example of one position, (N, C), has the variance 0: there `alpha` only draws it to 0.

    Raises `ValueError` for an `alpha` outside [0, 1].
    """

    def __init__(
        self,
        num_features: int,
        alpha: float,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.alpha = alpha

    @property
    def alpha(self) -> float:
        """The weight of the example, in [0, 1]."""
        return self._alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        if not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha, the weight of the example, is in [0, 1]; got {alpha!r}")
        self._alpha = float(alpha)

    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        """As BatchNorm in training; in `eval()` by the mixed statistics."""
        mean, var = self.running_mean, self.running_var
        if self.training or self._alpha == 0 or mean is None or var is None or not input.numel():
            return _BatchNorm.forward(self, input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        values = x if x.dim() > 2 else x.unsqueeze(2)
        positions = tuple(range(2, values.dim()))
        mean_i = values.mean(positions, keepdim=True)
        centred = values - mean_i
        var_i = centred.square().mean(positions, keepdim=True)
        shape = (1, -1) + (1,) * len(positions)
        mean, var = (estimate.to(x.dtype).view(shape) for estimate in (mean, var))
        mean, var = example_weighed(mean_i, var_i, mean, var, self._alpha)
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight.view(shape)
        offset = (mean_i - mean) * scale
        if self.bias is not None:
            offset = offset + self.bias.view(shape)
        return torch.addcmul(offset, centred, scale).view_as(x).to(input.dtype)

    def extra_repr(self) -> str:
        """As BatchNorm's, with the weight of the example."""
        return f"{super().extra_repr()}, alpha={self._alpha:g}"


class ExampleWeighingBatchNorm1d(ExampleWeighingBatchNorm, nn.BatchNorm1d):
    """`ExampleWeighingBatchNorm` over (N, C) or (N, C, L)."""


class ExampleWeighingBatchNorm2d(ExampleWeighingBatchNorm, nn.BatchNorm2d):
    """`ExampleWeighingBatchNorm` over (N, C, H, W)."""


class ExampleWeighingBatchNorm3d(ExampleWeighingBatchNorm, nn.BatchNorm3d):
    """`ExampleWeighingBatchNorm` over (N, C, D, H, W)."""
