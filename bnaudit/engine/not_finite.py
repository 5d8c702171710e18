"""Which samples have an output that is not finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def scores_not_finite(logits: Tensor) -> Tensor:
    """Which rows of class scores (N, K) give no class, (N,): those with NaN or +∞, or all −∞.

    A single −∞ excludes a class, as masks do on purpose. One reduction: the maximum is NaN, +∞ or
    −∞ in just these rows.
    """
    return ~logits.amax(1).isfinite()


def outputs_not_finite(tensors: Iterable[Tensor], samples: int) -> Tensor | None:
    """Which of `samples` samples have NaN in one of these tensors, (samples,); None without any.

    Infinities count for nothing: they may be masks, or costs of what cannot be. A tensor whose
    first dimension is not the samples is of all of them. Only floating and complex tensors count.
    """
    found: Tensor | None = None
    for tensor in tensors:
        mask = _has_nan(tensor, samples)
        if mask is not None:
            found = mask if found is None else found | mask.to(found.device)
    return found


def _has_nan(tensor: Tensor, samples: int) -> Tensor | None:
    if tensor.is_nested or tensor.layout != torch.strided or tensor.numel() == 0:
        return None
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point():
        return None
    if tensor.element_size() == 1:  # no reduction is made for eight bits
        tensor = tensor.float()
    if tensor.dim() == 0 or tensor.shape[0] != samples:
        return tensor.amax().isnan().expand(samples)
    inner = tuple(range(1, tensor.dim()))
    return (tensor.amax(inner) if inner else tensor).isnan()
