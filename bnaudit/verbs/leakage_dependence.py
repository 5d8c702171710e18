"""Does a sample's output in eval mode depend on the rest of its batch, and where does it begin?

A sample's output is compared with that of the same sample in another batch: alone, with other
mates, at another place. Every module is watched, so that the first whose output of a sample
differs is named, whether it is a BatchNorm layer or not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bnaudit.engine.batches import map_tensors
from bnaudit.engine.conditions import ForwardError, Subject
from bnaudit.engine.trial import COARSE, TOLERANCE
from bnaudit.errors import BnauditError
from bnaudit.results.leakage import Dependence
from bnaudit.stats.arrangements import Ints
from bnaudit.verbs.leakage_pool import Pool

SAMPLES = 8
"""So many are looked at, each in batches of up to as many."""

POINTS = 256
"""So many values of each sample's output of a module are compared, evenly spaced."""

IN_FLOAT64 = 1e-9
"""Relative difference beyond which outputs in float64 differ; rounding through a deep network
leaves 1e-13."""

FoundBy = Literal["alone", "other_mates", "position"]


@dataclass
class _Seen:
    """What every tensor that a module gave was, in order, and the model's own outputs.

    `calls`: name, kind, and a digest of each sample, (n, P), None where the tensor has no row a
    sample. `coarse`: whether some of it was in half precision.
    """

    calls: list[tuple[str, str, Tensor | None]] = field(default_factory=list)
    output: list[Tensor | None] = field(default_factory=list)
    coarse: bool = False

    def note(self, output: Any, size: int) -> list[Tensor | None]:
        """The digests of an output of `size` samples."""
        found: list[Tensor | None] = []
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self.coarse |= leaf.dtype not in TOLERANCE
                by_sample = leaf.dim() > 0 and len(leaf) == size and leaf.numel() > 0
                found.append(_digest(leaf.detach()) if by_sample else None)
        return found


def depends_on_mates(subject: Subject, pool: Pool) -> Dependence | None:
    """Compare the outputs of a few samples in several batches; None where there is only one.

    Inside `conditions.entered(model)`. Two outputs differ where they do by more than 1e-4 of the
    largest one (half precision: 3e-2): batches of other sizes are summed in another order, which
    gives 1e-6. What differs by more in the model's own precision is looked at again in float64,
    where rounding is a million times smaller than any dependence that matters: it alone decides
    where the model can be run so.
    """
    if pool.samples < 2:
        return None
    found = _compared(subject, pool, None)
    if found is None or not found.depends or subject.conditions.autocast is not None:
        return found
    again = _in_float64(subject, pool)
    if again is None:
        return found
    if again.depends:
        return replace(found, in_float64=True)
    clear = replace(found, layer=None, kind=None, found_by=None)
    return replace(clear, in_float64=False)


def _in_float64(subject: Subject, pool: Pool) -> Dependence | None:
    """The same with a copy of the model in float64; None where that cannot be made, or run."""
    conditions = subject.conditions
    if conditions.device.type == "mps":
        return None
    try:
        wide = replace(subject, model=copy.deepcopy(subject.model).double())
        return _compared(wide, pool, torch.float64)
    except BnauditError:
        return None
    except (RuntimeError, TypeError):  # what copies and casts raise
        return None


def _compared(subject: Subject, pool: Pool, dtype: torch.dtype | None) -> Dependence | None:
    # At most half of the samples, so that the others can be mates; two make a batch.
    size = max(2, min(SAMPLES, pool.samples // 2))
    chosen = np.arange(size)
    base = _run(subject, pool, chosen, dtype)
    tolerance = COARSE if base.coarse else TOLERANCE[torch.float32]
    tolerance = IN_FLOAT64 if dtype is not None else tolerance
    found = Dependence(samples=size, tolerance=tolerance)
    if _first_change(base, _run(subject, pool, chosen, dtype), chosen, chosen, tolerance):
        return replace(found, stochastic=True)
    for how, batches in _batches(pool, chosen).items():
        worst = None
        for batch in batches:
            try:
                other = _run(subject, pool, batch, dtype)
            except ForwardError:
                continue  # a model may take no batch of one
            worst = max(worst or 0.0, _difference(base, other, chosen, batch))
            change = _first_change(base, other, chosen, batch, tolerance)
            if change is not None and found.layer is None:
                found = replace(found, layer=change[0], kind=change[1], found_by=how)
        found = _with(found, how, worst)
    return found


def _with(found: Dependence, how: FoundBy, worst: float | None) -> Dependence:
    if how == "alone":
        return replace(found, alone=worst)
    if how == "other_mates":
        return replace(found, other_mates=worst)
    return replace(found, position=worst)


def _batches(pool: Pool, chosen: Ints) -> dict[FoundBy, list[Ints]]:
    """Other batches of the same samples."""
    size, half = len(chosen), len(chosen) // 2
    others = np.arange(size, min(size + half, pool.samples))
    mates = [np.concatenate([chosen[:half], others])] if len(others) else [chosen[:half]]
    return {
        "alone": [chosen[[i]] for i in range(min(size, 3))],
        "other_mates": mates,
        "position": [chosen[::-1].copy()],
    }


def _run(subject: Subject, pool: Pool, chosen: Ints, dtype: torch.dtype | None) -> _Seen:
    batch = pool.batch(chosen)
    data = subject.conditions.moved(batch)
    if dtype is not None:
        data = map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, data)
    seen = _Seen()
    with _watched(subject.model, seen, batch.size):
        output = subject.conditions.run(subject.model, data, batch)
    seen.output = seen.note(output, batch.size)
    return seen


@contextmanager
def _watched(model: nn.Module, seen: _Seen, size: int) -> Iterator[None]:
    """Every module's outputs are noted; the hooks are gone after."""
    handles = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for digest in seen.note(output, size):
                seen.calls.append((name, type(module).__name__, digest))

        return hook

    try:
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_hook(note(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _digest(x: Tensor) -> Tensor:
    rows = x.reshape(x.shape[0], -1)
    wide = rows if rows.dtype == torch.float64 else rows.float()
    step = -(-wide.shape[1] // POINTS)
    parts = [wide[:, ::step], wide.mean(1, keepdim=True)]
    return torch.cat([*parts, wide.square().mean(1, keepdim=True).sqrt()], 1).cpu()


def _rows(chosen: Ints, batch: Ints) -> tuple[list[int], list[int]]:
    """Where the samples that both batches hold stand in either."""
    place = {int(sample): i for i, sample in enumerate(chosen)}
    pairs = [(place[int(s)], j) for j, s in enumerate(batch) if int(s) in place]
    return [i for i, _ in pairs], [j for _, j in pairs]


def _relative(
    a: Tensor | None, b: Tensor | None, mine: list[int], theirs: list[int]
) -> float | None:
    """The largest difference, relative to the largest value; 1 where only one is finite.

    None where the two cannot be compared.
    """
    if a is None or b is None or a.shape[1:] != b.shape[1:]:
        return None
    x, y = a[mine].double(), b[theirs].double()
    finite = x[x.isfinite()].abs()
    scale = max(float(finite.amax()) if finite.numel() else 0.0, 1e-30)
    same = (x == y) | (x.isnan() & y.isnan())
    gap = torch.where(same, 0.0, (x - y).abs())
    return float(torch.where(gap.isfinite(), gap, scale).amax()) / scale


def _difference(base: _Seen, other: _Seen, chosen: Ints, batch: Ints) -> float:
    rows = _rows(chosen, batch)
    pairs = zip(base.output, other.output, strict=False)
    return max((_relative(a, b, *rows) or 0.0 for a, b in pairs), default=0.0)


def _first_change(
    base: _Seen, other: _Seen, chosen: Ints, batch: Ints, tolerance: float
) -> tuple[str, str] | None:
    """The first module whose output of a sample differs, where the model's output does too.

    A module that mixes samples, and whose output nothing uses, is no fault.
    """
    rows = _rows(chosen, batch)
    if _difference(base, other, chosen, batch) <= tolerance:
        return None
    for (name, kind, a), (other_name, _, b) in zip(base.calls, other.calls, strict=False):
        gap = _relative(a, b, *rows)
        if name != other_name or (gap is not None and gap > tolerance):
            return name, kind
    return "the output", "the model's own forward"
