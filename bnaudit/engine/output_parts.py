"""What there is to compare in a network's output: class scores, or all of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def class_scores(output: Any) -> Tensor | None:
    """The logits (N, K ≥ 2) of a classifier's output: the tensor itself or its `logits`."""
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif not isinstance(output, Tensor):
        output = getattr(output, "logits", None)
    if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] >= 2:
        return output if output.is_floating_point() else None
    return None


def output_parts(name: str, output: Any, above: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """All tensors of a nested output by their path, which begins with `name`. Modules are none.

    `above`: the identities of what it is part of, so that what refers to itself comes to an end.
    """
    if isinstance(output, Tensor):
        return {name: output}
    if isinstance(output, nn.Module) or id(output) in above:
        return {}
    above = (*above, id(output))
    if isinstance(output, Mapping):
        items = [(f"{name}.{key}", value) for key, value in output.items()]
    elif isinstance(output, (list, tuple)):
        items = [(f"{name}[{i}]", value) for i, value in enumerate(output)]
    elif hasattr(output, "__dict__"):
        items = [(f"{name}.{key}", value) for key, value in vars(output).items()]
    else:
        return {}
    return {
        path: tensor
        for key, value in items
        for path, tensor in output_parts(key, value, above).items()
    }
