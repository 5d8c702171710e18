"""Independent of bnaudit: what a plain loop over the batches says of a model's BatchNorm layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Forward = Callable[[nn.Module, Any], Any]

_aten = torch.ops.aten
_TRAINING = {
    _aten.native_batch_norm: 5,
    _aten.cudnn_batch_norm: 5,
    _aten.miopen_batch_norm: 5,
    _aten._native_batch_norm_legit: 5,
    _aten._native_batch_norm_legit_no_training: None,
    _aten._batch_norm_no_update: None,
}
"""Every operation that a BatchNorm in eval mode may arrive as, and where its `training` stands."""


@dataclass(frozen=True)
class Calls:
    """BatchNorm calls of one loop over the batches: with values, and with an empty input."""

    with_values: int
    empty: int


def count_calls(model: nn.Module, batches: Sequence[Any], forward: Forward) -> Calls:
    """Count the calls below the modules: as operations, whatever module issued them.

    An empty input never becomes a batch_norm operation (PyTorch returns a scaled copy), so those
    are counted one level up, as calls of `torch.nn.functional.batch_norm`.
    """
    operations, functions = _OperationCount(), _EmptyCount()
    with functions, operations:
        _run(model, batches, forward)
    return Calls(operations.count, functions.count)


class _OperationCount(TorchDispatchMode):
    """InstanceNorm arrives as a batch_norm operation in training: only the others are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in _TRAINING:
            training = _TRAINING[packet]
            self.count += training is None or not args[training]
        elif "batch_norm" in packet.__name__:
            raise AssertionError(f"{func} is a batch_norm operation that this count does not know")
        return func(*args, **(kwargs or {}))


class _EmptyCount(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.batch_norm:
            x = args[0] if args else kwargs["input"]
            self.count += x.numel() == 0
        return func(*args, **kwargs)


def naive_moments(
    model: nn.Module, batches: Sequence[Any], forward: Forward, names: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and biased variance, each (C,) float64, of everything that the named layers see."""
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with _recorded(model, seen):
        _run(model, batches, forward)
    return {name: _moments(inputs) for name, inputs in seen.items()}


@contextmanager
def _recorded(model: nn.Module, seen: Mapping[str, list[np.ndarray]]) -> Iterator[None]:
    """Inside, the inputs of the layers in `seen` are appended to it as (C, values) in float64."""

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            values = args[0].detach().transpose(0, 1).flatten(1)
            seen[name].append(values.double().numpy())

        return record

    handles = [model.get_submodule(name).register_forward_pre_hook(recorder(name)) for name in seen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _moments(inputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate(inputs, axis=1)
    return values.mean(axis=1), values.var(axis=1)


def _run(model: nn.Module, batches: Sequence[Any], forward: Forward) -> None:
    model.eval()
    with torch.no_grad():
        for batch in batches:
            forward(model, batch)
