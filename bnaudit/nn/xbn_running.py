"""The steps of a model as they follow from one run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bnaudit.nn.xbn_outline import STEPS, Step, joined, kind_of_call, kind_of_module, takes_values


def steps_of_a_run(
    model: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Step]:
    """Run `model(*args, **kwargs)` once, in `eval()` and without gradients; the steps that it took.

    `name` is the model's own, before the names of its modules. Its modes, statistics and the random
    state are as before afterwards. What is done to tensors outside PyTorch is not seen. Raises
    whatever the model does.
    """
    recorder = _Recorder((args, kwargs))
    with ExitStack() as stack:
        for part_name, part in model.named_modules():
            if isinstance(part, STEPS):
                stack.enter_context(recorder.one_step(part, joined(name, part_name)))
        stack.enter_context(_evaluating(model))
        stack.enter_context(torch.random.fork_rng([]))
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        model(*args, **kwargs)
    return recorder.steps


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in model.modules()}
    try:
        for part in modes:
            part.training = False  # not eval(): a module may do more there
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _Recorder(TorchFunctionMode):
    """Records each call of a PyTorch function on a tensor that comes from the inputs."""

    def __init__(self, inputs: object) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._made: dict[int, tuple[Tensor, int]] = {}  # with the tensor: its id stays its own
        self._inside: list[nn.Module] = []
        for tensor in _tensors(inputs):
            self._add(Step("input", ()), tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function, and note what it took in and gave."""
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        call = getattr(func, "__name__", "")
        inputs = self._steps_of((args, kwargs)) if takes_values(call) else ()
        output = func(*args, **kwargs)
        if inputs:
            step = Step(kind_of_call(call), inputs)
            self._add(step, args[0] if call == "__setitem__" else output)
        return output

    @contextmanager
    def one_step(self, module: nn.Module, name: str) -> Iterator[None]:
        """Whatever happens inside this module is one step."""
        waiting: list[tuple[int, ...]] = []

        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            waiting.append(self._steps_of((args, kwargs)))
            self._inside.append(module)

        def after(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._inside.pop()
            inputs = waiting.pop()
            if inputs and not self._inside:
                self._add(Step(kind_of_module(module), inputs, name), output)

        handles = (
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _steps_of(self, values: object) -> tuple[int, ...]:
        found = (self._made.get(id(tensor)) for tensor in _tensors(values))
        return tuple(dict.fromkeys(made[1] for made in found if made is not None))

    def _add(self, step: Step, made: object) -> None:
        tensors = list(_tensors(made))
        if not tensors:
            return
        place = len(self.steps)
        self.steps.append(step)
        for tensor in tensors:
            if not isinstance(made, Tensor):  # taking one of several is a step, as in a trace
                self.steps.append(Step("other", (place,)))
            self._made[id(tensor)] = (tensor, len(self.steps) - 1)


def _tensors(values: object) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
