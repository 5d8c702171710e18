"""How tensors of one file differ from those of another: read in pieces, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnaudit.checkpoints.file_tensor import FileTensor
from bnaudit.results.lineage import WeightChange

Values = NDArray[Any]

PIECE = 1 << 18
"""Elements that are worked on at once: they stay in a core's cache."""

# What is looked at for coarse grids: this many elements of a tensor, in rows no shorter than this.
_SAMPLE = 1 << 14
_SHORTEST_ROW = 32

_HALVES = ("float16", "bfloat16")


def is_floating(dtype: str) -> bool:
    """Whether tensors of this type hold weights or statistics rather than counts or masks."""
    return "float" in dtype


def change(child: FileTensor, parent: FileTensor) -> WeightChange:
    """How a tensor changed. One that is only rounded to half precision counts as unchanged, but for
    what became infinite by it.
    """
    if child.shape != parent.shape:
        return WeightChange(unmatched=1)
    elements = changed = zeros_before = zeros_after = infinite = 0
    squares = parent_squares = 0.0
    targets = _roundings(child.dtype, parent.dtype)
    for after, before in map(_wide, _pieces(child, parent)):
        elements += after.size
        zeros_before += _zeros(before)
        zeros_after += _zeros(after)
        parent_squares += _squares(before)
        targets = [dtype for dtype in targets if _is_rounded(after, before, dtype)]
        gap = _gap(after, before)
        changed += gap.size - _zeros(gap)
        square = _squares(gap)
        squares += square
        if not math.isfinite(square):
            infinite += int(np.count_nonzero(np.isinf(after) & np.isfinite(before)))
    if targets:
        changed, squares = infinite, math.inf if infinite else 0.0
    return WeightChange(
        elements, changed, squares, parent_squares, zeros_before, zeros_after, infinite=infinite
    )


def together(changes: Iterable[WeightChange]) -> WeightChange:
    """The change of several tensors as that of one."""
    return sum(changes, WeightChange())


def rounding(after: Values, before: Values) -> str | None:
    """The half precision to which `before` was rounded to make `after`; None where it was not."""
    same = np.array_equal(after, before, equal_nan=True)
    fits = [dtype for dtype in _HALVES if _is_rounded(after, before, dtype)]
    return None if same or not fits else fits[0]


def distinct_share(tensor: FileTensor) -> tuple[int, int] | None:
    """Non-zero values and how many of them are different ones, each counted row by row.

    Rows are those of the first dimension, as filters are quantised; the first ones are looked at.
    None for tensors whose rows are too short to tell.
    """
    if len(tensor.shape) < 2:
        return None
    length = math.prod(tensor.shape[1:])
    if length < _SHORTEST_ROW or not tensor.shape[0]:
        return None
    rows = min(tensor.shape[0], max(1, _SAMPLE // length))
    values = np.asarray(tensor.values()).reshape(tensor.shape[0], length)[:rows]
    values = np.sort(values, axis=1)
    steps = (values[:, 1:] != values[:, :-1]) & (values[:, 1:] != 0)
    distinct = int(np.count_nonzero(steps)) + int(np.count_nonzero(values[:, 0]))
    return int(np.count_nonzero(values)), distinct


class SharesOfParents:
    """Least squares of child ≈ Σ share·parent over all tensors, shares summing to 1, in pieces."""

    def __init__(self, parents: int) -> None:
        self._products = np.zeros((parents, parents))  # of (child, parents but the first) − first

    def add(self, child: FileTensor, parents: Sequence[FileTensor]) -> None:
        """Take one tensor into account."""
        for after, first, *rest in _pieces(child, *parents):
            start = first.astype(np.float64)
            gaps = np.stack([other - start for other in (after, *rest)])
            if np.isfinite(gaps).all():
                self._products += gaps @ gaps.T

    def shares(self) -> tuple[tuple[float, ...], float]:
        """The shares of all parents, and ‖child − mixture‖ relative to ‖child − nearest parent‖.

        The latter is NaN where the child is one of the parents, or the parents are the same.
        """
        products = self._products
        rest = np.linalg.lstsq(products[1:, 1:], products[1:, 0], rcond=None)[0]
        way = np.concatenate([[1.0], -rest])
        left = max(float(way @ products @ way), 0.0)
        to_first = float(products[0, 0])
        to_rest = np.diagonal(products)[1:] + to_first - 2 * products[0, 1:]
        nearest = min(to_first, float(to_rest.min()))
        same = nearest <= 0 or not np.diagonal(products)[1:].all()
        ratio = math.nan if same else math.sqrt(left / nearest)
        return (1 - float(rest.sum()), *(float(share) for share in rest)), ratio


def _pieces(*tensors: FileTensor) -> Iterator[tuple[Values, ...]]:
    """The tensors' values side by side, `PIECE` elements at once."""
    for chunks in zip(*(tensor.chunks() for tensor in tensors), strict=True):
        for start in range(0, chunks[0].size, PIECE):
            yield tuple(chunk[start : start + PIECE] for chunk in chunks)


def _wide(values: tuple[Values, ...]) -> tuple[Values, ...]:
    """float32 at least: NumPy is slow with anything smaller."""
    dtype = np.result_type(*(value.dtype for value in values), np.float32)
    return tuple(value.astype(dtype, copy=False) for value in values)


def _gap(after: Values, before: Values) -> Values:
    """after − before; 0 where both are the same, NaN and infinity included."""
    with np.errstate(invalid="ignore", over="ignore"):
        gap: Values = after - before
    if not np.isfinite(gap).all():
        same = (after == before) | (np.isnan(after) & np.isnan(before))
        gap[same] = 0.0
        gap[np.isnan(gap)] = np.inf
    return gap


def _zeros(values: Values) -> int:
    return int(np.count_nonzero(values == 0))  # of booleans, which NumPy counts fastest


def _squares(values: Values) -> float:
    # float32 products, added up in BLAS: six digits of a figure that is shown with three.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(values, values))


def _roundings(child: str, parent: str) -> list[str]:
    """The types that the parent's values may have been rounded to on their way to the child."""
    if child in _HALVES:
        return [child]
    return list(_HALVES) if parent not in _HALVES else []


def _is_rounded(after: Values, before: Values, dtype: str) -> bool:
    return np.array_equal(
        after.astype(np.float32, copy=False), _rounded(before, dtype), equal_nan=True
    )


def _rounded(values: Values, dtype: str) -> Values:
    """The values rounded to the nearest of a half precision, ties to even, as float32."""
    wide = values.astype(np.float32)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return wide.astype(np.float16).astype(np.float32)
    bits = wide.view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    rounded: Values = np.where(np.isnan(wide), wide, bits.view(np.float32))
    return rounded
