"""What torch keeps for each thread, for forwards that take turns on one thread.

A model may call a BatchNorm layer inside a `no_grad`, an `autocast(enabled=False)` or a
`torch.device(...)` of its own. A forward that waits in lockstep leaves the thread as the scheduler
had it, and finds its own contexts again when it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class ThreadState:
    """Grad mode, inference mode, autocast by device type, default dtype, modes, CUDA stream."""

    grad: bool
    inference: bool
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    autocast_cache: bool
    default_dtype: torch.dtype
    function_modes: tuple[Any, ...]
    stream: Any

    @classmethod
    def now(cls, device_types: tuple[str, ...]) -> ThreadState:
        """The thread's present state; autocast is read for these types of device."""
        return cls(
            grad=torch.is_grad_enabled(),
            inference=torch.is_inference_mode_enabled(),
            autocast=tuple(
                (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
                for kind in device_types
            ),
            autocast_cache=torch.is_autocast_cache_enabled(),
            default_dtype=torch.get_default_dtype(),
            function_modes=tuple(torch.overrides._get_current_function_mode_stack()),
            stream=torch.cuda.current_stream() if torch.cuda.is_initialized() else None,
        )

    def install(self) -> None:
        """Make the thread's state this one; inference mode, a guard and not a flag, stays."""
        torch.set_grad_enabled(self.grad)
        for kind, enabled, dtype in self.autocast:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(self.autocast_cache)
        torch.set_default_dtype(self.default_dtype)
        _set_function_modes(self.function_modes)
        if self.stream is not None:
            torch.cuda.set_stream(self.stream)


@contextmanager
def left_as(base: ThreadState) -> Iterator[None]:
    """Inside, the thread is as `base` says; after, as it was, also on an exception.

    Inside is where a forward waits. Each guard restores what it found absolutely, so it does not
    matter in which order the forwards go on.
    """
    mine = ThreadState.now(tuple(kind for kind, _, _ in base.autocast))
    other = torch.inference_mode(base.inference) if mine.inference != base.inference else None
    try:
        with other or nullcontext():
            base.install()
            yield
    finally:
        mine.install()


def device_types(device: torch.device) -> tuple[str, ...]:
    """The types of device whose autocast a model on `device` may switch."""
    return tuple(dict.fromkeys(("cpu", device.type)))


def _set_function_modes(wanted: tuple[Any, ...]) -> None:
    present = tuple(torch.overrides._get_current_function_mode_stack())
    if present == wanted:
        return
    common = 0
    while common < min(len(present), len(wanted)) and present[common] is wanted[common]:
        common += 1
    for _ in present[common:]:
        torch._C._pop_torch_function_stack()
    for mode in wanted[common:]:
        torch._C._push_on_torch_function_stack(mode)
