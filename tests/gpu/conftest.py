"""What needs a CUDA device is marked `gpu` and asks for `cuda`; the rest of this folder runs the
same code on the CPU, or on tensors that only say that they are on a device.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """The first CUDA device; what a test took of its memory is given back."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield torch.device("cuda", 0)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture
def without_tf32(cuda: torch.device) -> Iterator[None]:
    """Convolutions and products in float32 as the CPU computes them; TF32 keeps 10 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
