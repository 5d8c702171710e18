"""What torch keeps for a thread or the process, for forwards that take turns on one thread.

A model may call a BatchNorm layer inside a `no_grad`, an `autocast(enabled=False)` or a
`torch.device(...)` of its own. A forward that waits in lockstep leaves the thread as the scheduler
had it, and finds its own contexts again when it goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _python_dispatch


def _set_filters(filters: Any) -> None:
    warnings.filters = filters
    getattr(warnings, "_filters_mutated", lambda: None)()


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _determinism() -> tuple[bool, bool]:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warn_only


_Switch = tuple[Callable[[], Any], Callable[[Any], None]]

_PAIRS = (  # names in torch._C; not every version has all of them
    ("_get_cudnn_enabled", "_set_cudnn_enabled"),
    ("_get_cudnn_benchmark", "_set_cudnn_benchmark"),
    ("_get_cudnn_deterministic", "_set_cudnn_deterministic"),
    ("_get_mkldnn_enabled", "_set_mkldnn_enabled"),
    ("_get_mkldnn_deterministic", "_set_mkldnn_deterministic"),
    ("_get_flash_sdp_enabled", "_set_sdp_use_flash"),
    ("_get_mem_efficient_sdp_enabled", "_set_sdp_use_mem_efficient"),
    ("_get_math_sdp_enabled", "_set_sdp_use_math"),
    ("_get_cudnn_sdp_enabled", "_set_sdp_use_cudnn"),
    ("_get_overrideable_sdp_enabled", "_set_sdp_use_overrideable"),
    ("_get_sdp_priority_order", "_set_sdp_priority_order"),
    ("_get_cudnn_allow_tf32", "_set_cudnn_allow_tf32"),
    ("_get_onednn_allow_tf32", "_set_onednn_allow_tf32"),
    ("_get_float32_matmul_precision", "_set_float32_matmul_precision"),
)


def _precision(device: str) -> tuple[_Switch, ...]:
    """What torch 2.9 and newer keep beside the flags for TF32."""
    if not hasattr(torch._C, "_get_fp32_precision_getter"):
        return ()

    def write(value: Any) -> None:
        torch._C._set_fp32_precision_setter(device, "all", value)

    return ((lambda: torch._C._get_fp32_precision_getter(device, "all"), write),)


def _dispatch_flags() -> tuple[_Switch, ...]:
    """What `TorchDispatchMode` notes on entering, in variables of its module."""

    def switch(name: str) -> _Switch:
        return (
            lambda: getattr(_python_dispatch, name),
            lambda value: setattr(_python_dispatch, name, value),
        )

    names = (n for n in vars(_python_dispatch) if n.startswith("_is_in_"))
    return tuple(switch(n) for n in names if isinstance(getattr(_python_dispatch, n), bool))


SWITCHES: tuple[_Switch, ...] = (
    *_dispatch_flags(),
    *(
        (getattr(torch._C, read), getattr(torch._C, write))
        for read, write in _PAIRS
        if hasattr(torch._C, read) and hasattr(torch._C, write)
    ),
    *_precision("cuda"),
    *_precision("mkldnn"),
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (_determinism, lambda on: torch._C._set_deterministic_algorithms(on[0], warn_only=on[1])),
    (_anomaly, lambda on: torch.set_anomaly_enabled(*on)),
    (lambda: warnings.filters, _set_filters),
)
"""How each is read and set; only what differs is set."""


@dataclass(frozen=True)
class ThreadState:
    """The `SWITCHES`, inference mode, autocast by device type, modes, CUDA stream."""

    switches: tuple[Any, ...]
    inference: bool
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    function_modes: tuple[Any, ...]
    dispatch_modes: tuple[Any, ...]
    stream: Any

    @classmethod
    def now(cls, device_types: tuple[str, ...]) -> ThreadState:
        """The present state; autocast is read for these types of device."""
        return cls(
            switches=tuple(read() for read, _ in SWITCHES),
            inference=torch.is_inference_mode_enabled(),
            autocast=tuple(
                (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
                for kind in device_types
            ),
            function_modes=_function_modes(),
            dispatch_modes=_dispatch_modes(),
            stream=torch.cuda.current_stream() if torch.cuda.is_initialized() else None,
        )

    def install(self) -> None:
        """Make this the state; inference mode, a guard and not a switch, stays."""
        for (read, write), wanted in zip(SWITCHES, self.switches, strict=True):
            present = read()
            if present is not wanted and present != wanted:
                write(wanted)
        for kind, enabled, dtype in self.autocast:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        _restack(
            _dispatch_modes(), self.dispatch_modes, _python_dispatch._pop_mode, _push_dispatch_mode
        )
        _restack(
            _function_modes(),
            self.function_modes,
            torch._C._pop_torch_function_stack,
            torch._C._push_on_torch_function_stack,
        )
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


def _function_modes() -> tuple[Any, ...]:
    return tuple(torch.overrides._get_current_function_mode_stack())


def _dispatch_modes() -> tuple[Any, ...]:
    return tuple(_python_dispatch._get_current_dispatch_mode_stack())


def _push_dispatch_mode(mode: Any) -> None:
    _python_dispatch._push_mode(mode)


def _restack(
    present: tuple[Any, ...],
    wanted: tuple[Any, ...],
    pop: Callable[[], Any],
    push: Callable[[Any], Any],
) -> None:
    """Take off what is not wanted, and put on what is missing."""
    common = 0
    while common < min(len(present), len(wanted)) and present[common] is wanted[common]:
        common += 1
    for _ in present[common:]:
        pop()
    for mode in wanted[common:]:
        push(mode)
