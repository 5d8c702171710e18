"""Norms without a batch, standing where a BatchNorm layer stood."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.nn.parts import NormThenParts
from bnaudit.nn.replacing import carried_over


class GroupNormThen(NormThenParts, nn.GroupNorm):
    """GroupNorm, then its submodules in order: for a BatchNorm layer that contains an activation.

    Shapes: (N, C, …) -> what the submodules make of (N, C, …).
    """

    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        """Each example normalised by groups of its channels."""
        return nn.GroupNorm.forward(self, input)


def batch_free(layer: _BatchNorm, groups: int) -> nn.GroupNorm:
    """A GroupNorm with the parameters of `layer` (the same tensors), its eps, hooks and mode.

    One group is Layer Norm over channels and positions, as many groups as channels is Instance
    Norm.
    """
    kind = nn.GroupNorm if next(layer.children(), None) is None else GroupNormThen
    return carried_over(layer, kind(groups, layer.num_features, eps=layer.eps, affine=False))
