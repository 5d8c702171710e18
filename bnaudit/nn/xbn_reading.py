"""How XBN reads the outline of a model: traced, or else run, or else module by module.

By `torch.fx` where the forward can be traced. Where it cannot (it branches on shapes or data, say)
the module is run once, on noise of the channels that its first layer takes; and where that fails
too, the modules inside it are read one by one in the order in which they are registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin

from bnaudit.nn.xbn_outline import (
    STEPS,
    Outline,
    Step,
    joined,
    kind_of_call,
    kind_of_module,
    outline_of,
    takes_values,
)
from bnaudit.nn.xbn_running import steps_of_a_run

Example = Tensor | tuple[Any, ...] | dict[str, Any]

# Lengths of a side of the noise, by the number of its sides; small ones first, they cost less.
_SIDES = {1: (64, 1024), 2: (32, 64, 224), 3: (16, 32, 64)}


@dataclass(frozen=True)
class Unread:
    """A module in whose own forward additions may stand that were not seen, and why not."""

    module: str
    kind: str
    reason: str

    @property
    def within(self) -> str:
        """What the names of the modules inside it begin with."""
        return f"{self.module}." if self.module else ""

    def __str__(self) -> str:
        return f"{self.module or 'the model'} ({self.kind}: {self.reason})"


@dataclass
class Reading:
    """The outlines of a model's stretches in module order, and the modules that broke it up."""

    stretches: list[Outline] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """As PyTorch's, and what is one step."""
        return isinstance(m, STEPS) or super().is_leaf_module(m, module_qualified_name)


def read(model: nn.Module) -> Reading:
    """Outline a model: one stretch where it can be traced or run whole, else several."""
    reading = Reading()
    _read(model, "", reading)
    return reading


def read_by(model: nn.Module, example: Example) -> Reading:
    """Outline a model by what it does to `example`: its input, a tuple or a dict of its arguments.

    Raises `ValueError` where the example does not go through the model.
    """
    args = example if isinstance(example, tuple) else ()
    kwargs = example if isinstance(example, dict) else {}
    if isinstance(example, Tensor):
        args = (example,)
    try:
        steps = steps_of_a_run(model, "", args, kwargs)
    except Exception as error:
        raise ValueError(
            f"xbn: the example does not go through the model: {_in_a_line(error)}"
        ) from error
    return Reading([outline_of(steps)])


def _read(module: nn.Module, name: str, reading: Reading) -> None:
    if not any(isinstance(part, STEPS) for part in module.modules()):
        return
    if isinstance(module, STEPS):
        steps = [Step("input", ()), Step(kind_of_module(module), (0,), name)]
        reading.stretches.append(outline_of(steps))
        return
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # whatever a user's forward raises on symbols
        reasons = [f"not to be traced, {_in_a_line(error)}"]
    else:
        reading.stretches.append(outline_of(_steps(graph, module, name)))
        return
    if lazy := any(isinstance(part, LazyModuleMixin) for part in module.modules()):
        reasons.append("nor run, for it has layers that have not seen an input yet")
    for noise in () if lazy else _noises(module):
        try:
            steps = steps_of_a_run(module, name, (noise,), {})
        except Exception as error:  # as above, on an input of ours
            reasons[1:] = [f"nor run on noise {tuple(noise.shape)}, {_in_a_line(error)}"]
        else:
            reading.stretches.append(outline_of(steps))
            return
    reading.unread.append(Unread(name, type(module).__name__, "; ".join(reasons)))
    for child, part in module.named_children():
        _read(part, joined(name, child), reading)


def _in_a_line(error: Exception) -> str:
    """The first sentence, for PyTorch's own messages go on for a paragraph."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return first.partition(". ")[0].rstrip(".")


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
            kind = kind_of_module(root.get_submodule(node.target))
            step = Step(kind, inputs, joined(name, node.target))
        else:
            call = node.target if isinstance(node.target, str) else node.target.__name__
            if not takes_values(call):
                continue
            step = Step(kind_of_call(call), inputs)
        places[node] = len(steps)
        steps.append(step)
    return steps


def _noises(module: nn.Module) -> Iterator[Tensor]:
    """Two examples each, of the channels, device and dtype of the first layer in the module."""
    first = next(part for part in module.modules() if isinstance(part, STEPS))
    channels = first.in_channels if isinstance(first, _ConvNd) else first.num_features
    draw = torch.Generator().manual_seed(0)
    like = next(first.parameters(), torch.empty(0))
    for side in _SIDES[_sides(first)]:
        noise = torch.randn((2, channels, *[side] * _sides(first)), generator=draw)
        yield noise.to(like.device, like.dtype)


def _sides(layer: _ConvNd | _BatchNorm) -> int:
    if isinstance(layer, _ConvNd):
        return len(layer.kernel_size)
    if isinstance(layer, nn.BatchNorm1d):
        return 1
    return 3 if isinstance(layer, nn.BatchNorm3d) else 2
