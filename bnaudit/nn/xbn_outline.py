"""The outline of a model for XBN: its convolutions, BatchNorm layers and joins, in running order.

Read by `torch.fx` from what the model does, not from what its classes and attributes are called.
Where the forward of a module cannot be traced (it branches on data, say), the modules inside it are
traced one by one in the order in which they are registered.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Kind = Literal["input", "conv", "depthwise", "norm", "add", "cat", "split", "other"]

_FUNCTIONS: dict[Any, Kind] = {
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    torch.cat: "cat",
    torch.concat: "cat",
    torch.concatenate: "cat",
    torch.chunk: "split",
    torch.split: "split",
    torch.tensor_split: "split",
    torch.unbind: "split",
}
_METHODS: dict[str, Kind] = {
    "add": "add",
    "add_": "add",
    "chunk": "split",
    "split": "split",
    "tensor_split": "split",
    "unbind": "split",
}


@dataclass(frozen=True)
class Step:
    """One operation: what it is, the steps that it takes in, and the module that does it.

    `inputs` are positions in `Outline.steps`, each before this one.
    """

    kind: Kind
    inputs: tuple[int, ...]
    module: str | None = None


@dataclass(frozen=True)
class Outline:
    """The steps of one traced stretch in running order.

    `dominators[i]` is the last step through which every way from the inputs to step i leads, -1
    where there is none: for a join, the point at which its branches part.
    """

    steps: tuple[Step, ...]
    dominators: tuple[int, ...]
    users: tuple[tuple[int, ...], ...]

    def between(self, start: int, end: int) -> frozenset[int]:
        """The steps on the ways from `start`, which dominates `end`, to `end`, without `start`."""
        found: set[int] = set()
        waiting = [end]
        while waiting:
            step = waiting.pop()
            if step > start and step not in found:
                found.add(step)
                waiting.extend(self.steps[step].inputs)
        return frozenset(found)

    def before(self, step: int) -> Step | None:
        """The convolution, norm or join that made what this step takes in, None where unclear."""
        while len(inputs := self.steps[step].inputs) == 1:
            step = inputs[0]
            if self.steps[step].kind != "other":
                return self.steps[step]
        return None


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Convolutions and norms of any class are one step, whatever their forward does."""
        return isinstance(m, (_BatchNorm, _ConvNd)) or super().is_leaf_module(
            m, module_qualified_name
        )


def outlines(model: nn.Module) -> list[Outline]:
    """Outline a model: one stretch where it can be traced whole, else several in module order."""
    return list(_stretches(model, ""))


def _stretches(module: nn.Module, name: str) -> Iterator[Outline]:
    if not any(isinstance(part, (_BatchNorm, _ConvNd)) for part in module.modules()):
        return
    if isinstance(module, (_BatchNorm, _ConvNd)):
        yield _outline([Step("input", ()), Step(_kind_of_module(module), (0,), name)])
        return
    try:
        graph = _Tracer().trace(module)
    except Exception:  # whatever a user's forward raises on symbols
        for child, part in module.named_children():
            yield from _stretches(part, _joined(name, child))
        return
    yield _outline(_steps(graph, module, name))


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)


def _steps(graph: fx.Graph, root: nn.Module, name: str) -> list[Step]:
    steps: list[Step] = []
    places: dict[fx.Node, int] = {}
    for node in graph.nodes:
        inputs = tuple(places[other] for other in node.all_input_nodes if other in places)
        if node.op == "placeholder":
            step = Step("input", ())
        elif not inputs:  # a constant or a parameter: no way from the input leads through it
            continue
        elif node.op == "call_module":
            kind = _kind_of_module(root.get_submodule(node.target))
            step = Step(kind, inputs, _joined(name, node.target))
        else:
            step = Step(_kind_of_call(node.target), inputs)
        places[node] = len(steps)
        steps.append(step)
    return steps


def _kind_of_call(target: str | Callable[..., Any]) -> Kind:
    if isinstance(target, str):
        return _METHODS.get(target, "other")
    return _FUNCTIONS.get(target, "other")


def _kind_of_module(module: nn.Module) -> Kind:
    if isinstance(module, _BatchNorm):
        return "norm"
    if not isinstance(module, _ConvNd):
        return "other"
    return "depthwise" if 1 < module.groups == module.in_channels else "conv"


def _outline(steps: list[Step]) -> Outline:
    dominators: list[int] = []
    users: list[list[int]] = [[] for _ in steps]
    for place, step in enumerate(steps):
        for source in step.inputs:
            users[source].append(place)
        dominators.append(_meeting(step.inputs, dominators))
    return Outline(tuple(steps), tuple(dominators), tuple(tuple(each) for each in users))


def _meeting(inputs: tuple[int, ...], dominators: list[int]) -> int:
    """The last step that dominates all of these (Cooper, Harvey, Kennedy 2001, one sweep)."""
    if not inputs:
        return -1
    meeting = inputs[0]
    for other in inputs[1:]:
        while meeting != other:
            if meeting > other:
                meeting = dominators[meeting]
            else:
                other = dominators[other]
    return meeting
