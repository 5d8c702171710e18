"""Norms without a batch, standing where a BatchNorm layer stood."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin


class GroupNormThen(nn.GroupNorm):
    """GroupNorm, then the submodules in order: for a BatchNorm layer that contains an activation.

    The submodules keep their names. Shapes: (N, C, ...) -> what they make of (N, C, ...).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as nn.GroupNorm names it
        """Normalise each example by groups of its channels, then run the submodules."""
        output = super().forward(input)
        for part in self.children():
            output = part(output)
        return output


def batch_free(layer: _BatchNorm, groups: int, name: str) -> nn.GroupNorm:
    """A GroupNorm with the parameters of `layer` (the same tensors), its eps and training mode.

    One group is Layer Norm over channels and positions, as many groups as channels is Instance
    Norm. Raises TypeError, naming the layer by `name`, where a subclass with a forward of its own
    does more than BatchNorm followed by its submodules.
    """
    if isinstance(layer, LazyModuleMixin):
        raise TypeError(f"xbn: {name} has no parameters yet: run the model on one batch first")
    parts = list(layer.named_children())
    if _has_own_forward(layer) and not _is_norm_then_parts(layer):
        raise TypeError(
            f"xbn: {name} is a {type(layer).__name__}, which does more than BatchNorm and its "
            "submodules: replace it by hand"
        )
    kind = GroupNormThen if parts else nn.GroupNorm
    norm = kind(groups, layer.num_features, eps=layer.eps, affine=False)
    norm.affine = layer.affine
    norm.weight, norm.bias = layer.weight, layer.bias
    for child, part in parts:
        norm.add_module(child, part)
    norm.training = layer.training  # the submodules keep their own mode
    return norm


def _has_own_forward(layer: _BatchNorm) -> bool:
    return type(layer).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward)


@torch.no_grad()
def _is_norm_then_parts(layer: _BatchNorm) -> bool:
    """Whether the layer's output in eval mode is its submodules' on the plain BatchNorm's."""
    trial = copy.deepcopy(layer).to("cpu", torch.float64).eval()
    if trial.running_mean is None or trial.running_var is None:
        return False
    generator = torch.Generator().manual_seed(0)
    for positions in ((3, 3), (3,), (3, 3, 3), ()):
        inputs = torch.randn(
            2, trial.num_features, *positions, generator=generator, dtype=torch.float64
        )
        expected = functional.batch_norm(
            inputs,
            trial.running_mean,
            trial.running_var,
            trial.weight,
            trial.bias,
            eps=trial.eps,
        )
        try:
            output = trial(inputs)
            for part in trial.children():
                expected = part(expected)
        except Exception:  # of a shape that this layer does not take
            continue
        return (
            isinstance(output, Tensor)
            and output.shape == expected.shape
            and torch.allclose(output, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
        )
    return False
