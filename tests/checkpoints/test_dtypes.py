"""Types of tensors, without torch: the same as torch's own."""

from __future__ import annotations

import numpy as np
import torch

from bnaudit.checkpoints.dtypes import DTYPES
from bnaudit.checkpoints.stored import file_dtype, torch_dtype


def test_every_type_of_torch_is_known_with_its_size() -> None:
    theirs = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    assert {torch_dtype(dtype) for dtype in DTYPES.values() if hasattr(torch, dtype.name)} == theirs
    for dtype in theirs:
        ours = file_dtype(dtype)
        assert ours.itemsize == dtype.itemsize
        assert ours.word == (dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize)
        assert torch_dtype(ours) == dtype


def test_numpy_reads_the_same_bytes() -> None:
    for dtype in DTYPES.values():
        if dtype.numpy is not None:
            assert np.dtype(dtype.numpy).itemsize == dtype.itemsize
            if dtype.name != "bfloat16":
                assert np.dtype(dtype.numpy).name == dtype.name
