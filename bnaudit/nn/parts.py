"""Norms that contain what comes after them, as timm's BatchNormAct2d contains an activation."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


class NormThenParts(nn.Module):
    """Normalises, then runs its submodules in order; a layer that nothing was put into has none.

    So a layer stands in for a BatchNorm that contains an activation, under the same names.
    """

    @abstractmethod
    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        """The normalised input, (N, C, …)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        """Normalise (N, C, …), and run what the layer contains."""
        output = self.normalised(input)
        for part in self.children():
            output = part(output)
        return output


_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def is_norm_then_parts(layer: _BatchNorm) -> bool:
    """Whether the layer is BatchNorm followed by its submodules in order, and nothing else.

    True for PyTorch's own and for ours. A subclass with a forward of its own is tried on random
    inputs, on a copy, in both modes; one without running statistics is not taken for one.
    """
    forward: Any = type(layer).forward
    if forward is NormThenParts.forward:
        return True
    if forward in _PLAIN and next(layer.children(), None) is None:
        return True
    if layer.running_mean is None or layer.running_var is None:
        return False
    trial = copy.deepcopy(layer).to("cpu", torch.float64)
    return all(_fits(trial.train(mode)) for mode in (True, False))


@torch.no_grad()
def _fits(trial: _BatchNorm) -> bool:
    """Whether an output of the layer, of the first shape that it takes, is the parts' on BN's."""
    draw = torch.Generator().manual_seed(0)
    assert trial.running_mean is not None
    assert trial.running_var is not None
    for positions in ((), (3,), (3, 3), (3, 3, 3)):
        x = torch.randn((4, trial.num_features, *positions), generator=draw, dtype=torch.float64)
        mean, var = trial.running_mean.clone(), trial.running_var.clone()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)  # a part may be a dropout
            try:
                output = trial(x)
            except Exception:  # a shape that this layer does not take
                continue
            torch.manual_seed(0)
            expected = functional.batch_norm(
                x, mean, var, trial.weight, trial.bias, trial.training, 0.0, trial.eps
            )
            for part in trial.children():
                expected = part(expected)
        return (
            isinstance(output, Tensor)
            and output.shape == expected.shape
            and torch.allclose(output, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
        )
    return False
