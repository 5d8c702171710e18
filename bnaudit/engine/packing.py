"""Python objects as bytes in a tensor, for ranks of one job to send each other."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor


def pack(value: Any) -> Tensor:
    """Its pickle, uint8, on the CPU."""
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return torch.frombuffer(bytearray(file.getbuffer()), dtype=torch.uint8)


def unpack(packed: Tensor) -> Any:
    """The object again. Only for what a rank of the same job packed: pickles can run code."""
    return pickle.loads(packed.numpy().tobytes())


class _Pickler(pickle.Pickler):
    """Plain tensors on the CPU as arrays: torch pickles a file for each of them, and the whole
    storage of a view: of one layer's channels those of all layers.
    """

    def reducer_override(self, value: Any) -> Any:
        """How a value is pickled; NotImplemented: as ever."""
        if type(value) is not Tensor or value.requires_grad:
            return NotImplemented
        if value.device.type != "cpu":
            return _as_it_is, (value.cpu(),)  # the other rank may not have that device
        if value.dtype not in _KNOWN or value.layout is not torch.strided or value.is_conj():
            return NotImplemented
        return torch.from_numpy, (value.resolve_neg().numpy(),)


def _as_it_is(value: Tensor) -> Tensor:
    return value


_KNOWN = {torch.float64, torch.float32, torch.float16, torch.uint8, torch.int8, torch.int16}
_KNOWN |= {torch.int32, torch.int64, torch.bool}
