"""A few values from all over a tensor: enough to tell it from another one, at no cost."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

VALUES = 64
"""Of each sample's tensor so many values are looked at, from all over it; all of a smaller one."""

_GOLDEN = (math.sqrt(5) - 1) / 2

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the size of an element: every dtype can be looked at so, not every one picked from."""


def scattered_values(tensor: Tensor, *, batched: bool) -> Tensor | None:
    """Some values of each sample, (samples, ≤ `VALUES`), or of the whole tensor; None of none."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        return None
    if tensor.numel() == 0:
        return None
    one = tensor.detach().resolve_conj().resolve_neg()
    one = one.view(_AS_INTEGERS.get(one.element_size(), one.dtype))
    if not batched:
        one = one[None]
    if one.dim() == 1:
        return one.clone()[:, None]
    index: tuple[slice | Tensor, ...] = (slice(None), *_places_on(tuple(one.shape[1:]), one.device))
    return one[index]


@lru_cache(maxsize=256)
def _places_on(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """On the device of the tensor that is looked at: moved once, or every batch would wait."""
    return tuple(at.to(device) for at in places_in(shape))


@lru_cache(maxsize=256)
def places_in(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Coordinates of values from all over, whatever the strides: nothing is copied for them.

    By multiples of the golden ratio: even steps would keep to a few columns of an image.
    """
    numel = int(np.prod(shape, dtype=np.int64))
    flat = np.arange(numel) if numel <= VALUES else np.arange(1, VALUES + 1) * _GOLDEN % 1 * numel
    return tuple(torch.from_numpy(axis) for axis in np.unravel_index(flat.astype(np.int64), shape))
