"""Norms without a batch, standing where a BatchNorm layer stood."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from bnaudit.nn.parts import NormThenParts, is_norm_then_parts


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
    Norm. The layer is one that `check_replaceable` lets pass.
    """
    parts = list(layer.named_children())
    kind = GroupNormThen if parts else nn.GroupNorm
    norm = kind(groups, layer.num_features, eps=layer.eps, affine=False)
    norm.affine = layer.affine
    norm.weight, norm.bias = layer.weight, layer.bias
    for child, part in parts:
        norm.add_module(child, part)
    for attribute, value in vars(layer).items():
        if "_hooks" in attribute and attribute in vars(norm):
            vars(norm)[attribute] = (
                value  # the same dictionary: handles that remove a hook still do
            )
    norm.training = layer.training  # the submodules keep their own mode
    return norm


def check_replaceable(layer: _BatchNorm, name: str) -> None:
    """Raise TypeError that names the layer by `name` for one that no norm can stand in for."""
    what = f"xbn: {name} is a {type(layer).__name__}"
    if isinstance(layer, LazyModuleMixin):
        raise TypeError(f"{what} that has not seen an input yet: run one forward first")
    if parametrize.is_parametrized(layer):
        raise TypeError(f"{what} with parametrised weights: remove the parametrisation first")
    if not is_norm_then_parts(layer):
        raise TypeError(
            f"{what}, whose own forward does more than BatchNorm and its submodules: replace it by "
            "hand"
        )
