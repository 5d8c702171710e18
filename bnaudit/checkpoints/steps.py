"""How many steps an optimizer made, where a training checkpoint says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bnaudit.checkpoints.search import is_optimizer
from bnaudit.checkpoints.stubs import TensorRef

# How deep an optimizer's state may be nested, in keys.
_DEPTH = 2
# What training scripts call the number of updates, the plainest first.
_COUNTERS = ("global_step", "num_updates", "iteration", "step")

Number = Callable[[TensorRef], float]
"""The value of a tensor of one element."""


def steps_in(content: object, number: Number) -> int | None:
    """The steps that a checkpoint speaks of; None where it does not.

    Of all its optimizers' counters (`state[*].step`), the largest: a parameter that was frozen for
    a while has made fewer. Else a counter beside the weights: `global_step` (Lightning),
    `num_updates` (fairseq), `iteration`, `step`.
    """
    counts = [
        count
        for optimizer in _optimizers(content, _DEPTH)
        for count in _counts(optimizer.get("state"), number)
    ]
    if counts:
        return max(counts)
    if isinstance(content, dict):
        for name in _COUNTERS:
            count = _count(content.get(name), number)
            if count is not None:
                return count
    return None


def _optimizers(content: object, depth: int) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, dict) and is_optimizer(content):
        yield content
    elif depth > 0 and isinstance(content, (dict, list, tuple)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _optimizers(value, depth - 1)


def _counts(state: object, number: Number) -> Iterator[int]:
    for of_parameter in state.values() if isinstance(state, dict) else ():
        if isinstance(of_parameter, dict):
            count = _count(of_parameter.get("step"), number)
            if count is not None:
                yield count


def _count(value: object, number: Number) -> int | None:
    """A positive whole number, however it is written; None for anything else."""
    if isinstance(value, TensorRef) and value.plain and set(value.size) <= {1}:
        value = number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if value > 0 and value == value // 1 else None
