"""Everything that bnaudit changes on its way through a model, as context managers that undo it.

After each of them the model and PyTorch's global state are bit for bit as before, also after an
exception or Ctrl-C inside.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnaudit.engine.layers import BNLayer

Handler = Callable[[BNLayer, Callable[..., Any], Tensor], Any]
"""What runs in place of a layer: (layer, its own forward as a function of the input, the input)."""


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients or compiled code; modes and buffers are put back after.

    `no_grad`, not `inference_mode`: tensors made in inference mode poison later training. Compiled
    modules run eagerly inside, because hooks and patches added after compilation are ignored.
    """
    with ExitStack() as stack:
        stack.enter_context(_modes(model))
        stack.enter_context(_buffers(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def _modes(model: nn.Module) -> Iterator[None]:
    """The flags alone: a `train` method of the model's own may do more (merge weights, say)."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _buffers(model: nn.Module) -> Iterator[None]:
    """Put back every buffer that changed: its tensor where it was rebound, its values in place.

    Parameters are put back where they were rebound (`torch.func.functional_call` does).
    """
    tables = [(module, dict(module._buffers)) for module in model.modules()]
    parameters = [(module, dict(module._parameters)) for module in model.modules()]
    values = [(b, b.clone()) for _, table in tables for b in table.values() if b is not None]
    try:
        yield
    finally:
        _put_back(tables)
        for module, table in parameters:
            if [*map(id, module._parameters.values())] != [*map(id, table.values())]:
                module._parameters.clear()
                module._parameters.update(table)
        with torch.no_grad():
            for buffer, before in values:
                if not _same_bits(buffer, before):
                    buffer.copy_(before)


def _put_back(tables: list[tuple[nn.Module, dict[str, Tensor | None]]]) -> None:
    for module, table in tables:
        module._buffers.clear()
        module._buffers.update(table)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run with Python, NumPy and torch generators seeded; their states are restored after.

    Those of an accelerator are touched where it is the `device`, or where it is in use already.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    cpu_state = torch.get_rng_state()
    cuda = device.type == "cuda" or torch.cuda.is_initialized()
    cuda_states = torch.cuda.get_rng_state_all() if cuda else []
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        reseed(seed, device)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(cpu_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


def reseed(seed: int, device: torch.device) -> None:
    """Seed all generators that `seeded` restores."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda" or torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def placed(
    model: nn.Module, device: torch.device | None, *, channels_last: bool = False
) -> Iterator[None]:
    """The model on `device` and, where asked, in channels_last; its own storage returns after."""
    if device is None and not channels_last:
        yield
        return
    parameters = [(p, p.data, p.grad) for p in model.parameters()]
    tables = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        for parameter, _, _ in parameters:
            parameter.grad = None  # or it would be moved as well
        if device is not None:
            model.to(device)
        if channels_last:
            model.to(memory_format=torch.channels_last)
        yield
    finally:
        for parameter, data, grad in parameters:
            parameter.data = data
            parameter.grad = grad
        _put_back(tables)


@contextmanager
def intercepted(layers: Sequence[BNLayer], handler: Handler) -> Iterator[None]:
    """Inside, every call of a layer runs `handler(layer, forward, input)` instead.

    The instance's `forward` is replaced, not hooked: a hook gets no positional argument for
    `bn(input=x)` and sees nothing of `bn.forward(x)`.
    """
    before = [(layer.module, layer.module.__dict__.get("forward")) for layer in layers]
    try:
        for layer in layers:
            layer.module.forward = _Intercept(layer, layer.module.forward, handler)
        yield
    finally:
        for module, own in before:
            module.__dict__.pop("forward", None)
            if own is not None:  # somebody else's patch, put back as it was
                module.__dict__["forward"] = own


class _Intercept:
    """Finds the input among a call's arguments, and leaves the others as they are."""

    def __init__(self, layer: BNLayer, forward: Callable[..., Any], handler: Handler) -> None:
        self._layer, self._forward, self._handler = layer, forward, handler

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args:
            return self._handler(
                self._layer, lambda x: self._forward(x, *args[1:], **kwargs), args[0]
            )
        if not kwargs:
            return self._handler(self._layer, lambda x: self._forward(), None)  # type: ignore[arg-type]
        name = "input" if "input" in kwargs else next(iter(kwargs), "input")
        rest = {key: value for key, value in kwargs.items() if key != name}
        return self._handler(
            self._layer,
            lambda x: self._forward(**{name: x}, **rest),
            kwargs.get(name),  # type: ignore[arg-type]
        )


@contextmanager
def statistics(layer: BNLayer, mean: Tensor, var: Tensor) -> Iterator[None]:
    """Inside, the layer normalises by these statistics; its own tensors return after.

    The buffers are rebound, not written, and the tensors are cast to the dtype of the layer's own.
    """
    with Applied() as applied:
        applied.put(layer, mean, var)
        yield


@contextmanager
def attributes(model: nn.Module) -> Iterator[None]:
    """What modules keep in plain attributes is as before after: for forwards that are broken off.

    Lists, dicts and sets get their items back, in place; other values that were replaced are put
    back. What a hook keeps outside of the model is not seen.
    """
    before = [
        (module.__dict__, name, value, _items(value))
        for module in model.modules()
        for name, value in module.__dict__.items()
        if not name.startswith("_") and name not in ("training", "forward")
    ]
    try:
        yield
    finally:
        for table, name, value, items in before:
            table[name] = value
            if items is not None:
                value.clear()
                value.extend(items) if isinstance(value, list) else value.update(items)


def _items(value: object) -> Any:
    """A shallow copy of a container, None of anything else."""
    return copy.copy(value) if type(value) in (list, dict, set) else None


@contextmanager
def other_eps(layers: Sequence[BNLayer], eps: float) -> Iterator[None]:
    """Inside, the layers normalise with this eps; each has its own again after."""
    modules: list[Any] = [layer.module for layer in layers]
    before = [(module, module.eps) for module in modules]
    try:
        for module in modules:
            module.eps = eps
        yield
    finally:
        for module, own in before:
            module.eps = own


class Applied:
    """Statistics in place of the layers' own, put there one by one; the own ones return at the end.

    A context manager. The buffers are rebound, not written; values are cast to the dtype and moved
    to the device of the layer's own.
    """

    def __init__(self, statistics: Mapping[BNLayer, tuple[Tensor, Tensor]] | None = None) -> None:
        self._given = dict(statistics or {})
        self._own: dict[BNLayer, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> Applied:
        for layer, (mean, var) in self._given.items():
            self.put(layer, mean, var)
        return self

    def put(self, layer: BNLayer, mean: Tensor, var: Tensor) -> None:
        """The layer normalises by these from now on."""
        own_mean, own_var = self._own.setdefault(layer, layer.estimated)
        buffers = layer.module._buffers
        # The dtype first: not every device has float64.
        buffers["running_mean"] = mean.detach().to(own_mean.dtype, copy=True).to(own_mean.device)
        buffers["running_var"] = var.detach().to(own_var.dtype, copy=True).to(own_var.device)

    def __exit__(self, *exception: object) -> None:
        for layer, (mean, var) in self._own.items():
            buffers = layer.module._buffers
            buffers["running_mean"], buffers["running_var"] = mean, var
        self._own.clear()
