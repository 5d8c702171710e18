"""The outline of a model for XBN: its convolutions, BatchNorm layers and joins, in running order.

What classes and attributes are called does not matter; see `xbn_reading` for how it is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Kind = Literal["input", "conv", "depthwise", "norm", "add", "cat", "split", "other"]

# Convolutions and norms of any class are one step, whatever their forward does.
STEPS = (_BatchNorm, _ConvNd)

_CALLS: dict[str, Kind] = {
    "add": "add",
    "add_": "add",
    "iadd": "add",
    "cat": "cat",
    "concat": "cat",
    "concatenate": "cat",
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


def kind_of_call(name: str) -> Kind:
    """What the function or method of PyTorch or of `operator` that has this name does."""
    return _CALLS.get(name, "other")


def takes_values(name: str) -> bool:
    """Whether that function uses the values of a tensor: `zeros_like` takes its shape only."""
    return not name.endswith("_like") and not name.startswith("new_")


def kind_of_module(module: nn.Module) -> Kind:
    """What a module does that is one step."""
    if isinstance(module, _BatchNorm):
        return "norm"
    if not isinstance(module, _ConvNd):
        return "other"
    return "depthwise" if 1 < module.groups == module.in_channels else "conv"


def joined(*names: str) -> str:
    """The name of a module, from those of its parents and its own."""
    return ".".join(name for name in names if name)


def outline_of(steps: Sequence[Step]) -> Outline:
    """The outline of these steps, without the inputs that come in from the side.

    An input of the model that no convolution takes in (a mask, a position) and that meets the
    others on their way parts no branches.
    """
    steps = _without_side_inputs(steps)
    dominators: list[int] = []
    users: list[list[int]] = [[] for _ in steps]
    for place, step in enumerate(steps):
        for source in step.inputs:
            users[source].append(place)
        dominators.append(_meeting(step.inputs, dominators))
    return Outline(tuple(steps), tuple(dominators), tuple(tuple(each) for each in users))


def _without_side_inputs(steps: Sequence[Step]) -> list[Step]:
    origins: list[frozenset[int]] = []  # of each step, the inputs of the model that it comes from
    convolved: list[bool] = []
    kept: list[Step] = []
    for place, step in enumerate(steps):
        main = frozenset[int]().union(*(origins[i] for i in step.inputs if convolved[i]))
        inputs = tuple(i for i in step.inputs if not main or origins[i] & main)
        kept.append(dataclasses.replace(step, inputs=inputs))
        own = frozenset({place}) if step.kind == "input" else frozenset[int]()
        origins.append(own.union(*(origins[i] for i in inputs)))
        convolved.append(
            step.kind in ("conv", "depthwise", "norm") or any(convolved[i] for i in inputs)
        )
    return kept


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
