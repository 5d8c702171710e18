"""Weights that `torch.nn.utils.prune` keeps as a dense tensor and a mask."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from bnaudit.checkpoints.file_tensor import FileTensor

_DENSE = "_orig"
_MASK = "_mask"


def with_masks_applied(tensors: Mapping[str, FileTensor]) -> dict[str, FileTensor]:
    """The tensors as the network uses them: `weight_orig` times `weight_mask` is `weight`."""
    applied: dict[str, FileTensor] = {}
    for name, tensor in tensors.items():
        plain = name.removesuffix(_DENSE)
        mask = tensors.get(plain + _MASK)
        if name.endswith(_DENSE) and mask is not None and mask.shape == tensor.shape:
            applied[plain] = FileTensor(tensor.dtype, tensor.shape, partial(_masked, tensor, mask))
        elif not (name.endswith(_MASK) and name.removesuffix(_MASK) + _DENSE in tensors):
            applied[name] = tensor
    return applied


def _masked(tensor: FileTensor, mask: FileTensor) -> NDArray[Any]:
    values = tensor.values()
    masked: NDArray[Any] = values * mask.values().astype(values.dtype, copy=False)
    return masked
