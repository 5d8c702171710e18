"""Moments of contiguous runs of rows of a layer's input: the only code that reads activations.

Which kernel reads fastest at what accuracy was measured, see `benchmarks/moments_kernel.py`.
On the CPU PyTorch's own `batch_norm_update_stats` is slow (contiguous) or accumulates in float32
without blocking (channels_last: relative error 4e-3 at two million elements a channel).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise

import torch
from torch import Tensor

SCRATCH_ELEMENTS = 2**19
"""Elements of the CPU scratch buffer: 2 MB in float32, which stays in the cache between reads."""


HUGE_ROW = 4
"""A row that exceeds the scratch buffer so many times is read slab by slab."""

FAR = 100.0
"""A run is read again where its squared distance from the pilot exceeds so many variances."""

LONE_RUN = 2**21
"""On CUDA a run of at least so many elements is read by a kernel of its own: a device that reads
2 TB/s takes about as long for these 8 MB as the host for the call. Reasoned, not yet measured."""

CAST_ELEMENTS = 2**22
"""Half precision is cast for runs that are read together, so many elements at once: 16 MB."""


@dataclass(frozen=True)
class RunMoments:
    """Moments of S consecutive runs of rows: `mean` and `m2` (S, C), on the input's device.

    `counts` holds each run's number of elements a channel: known without waiting for a device.
    """

    counts: tuple[int, ...]
    mean: Tensor
    m2: Tensor

    def whole(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C,) of all runs together, where the input is: nothing waits.

        By the law of total variance, about the first run's mean; in float64 where that exists.
        """
        device = self.mean.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        with _plain(device):
            n = sum(self.counts)
            shares = torch.tensor([c / n for c in self.counts], dtype=wide, device="cpu")
            shares = shares.to(device, non_blocking=device.type == "cuda").unsqueeze(1)
            origin = self.mean[0].to(wide)
            offsets = self.mean.to(wide) - origin
            offset = (offsets * shares).sum(0)
            between = ((offsets - offset).square() * shares).sum(0)
            return origin + offset, self.m2.to(wide).sum(0) / n + between


@contextmanager
def _plain(device: torch.device) -> Iterator[None]:
    """Inside, tensors are made as anywhere else.

    A part of the model may run in inference mode; tensors made there could not be used outside.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def run_moments(x: Tensor, bounds: Sequence[int], scratch: Scratch) -> RunMoments:
    """Moments of rows bounds[i] to bounds[i+1] of `x`, for each i.

    `x`: (N, C, *) of any floating dtype, 2-D to 5-D; `bounds`: increasing, from 0 to N, no run
    empty; `scratch` is used on the CPU only. On CUDA one fused kernel for each large run, and one
    for neighbouring small runs of one length; nothing there waits for the device.
    """
    if x.dim() == 2:
        x = x.unsqueeze(-1)
    row = x.numel() // (x.shape[0] * x.shape[1])
    counts = tuple((stop - start) * row for start, stop in pairwise(bounds))
    with _plain(x.device):
        if x.device.type == "cpu":
            mean, m2 = _shifted_sums(x, bounds, counts, scratch)
        elif x.device.type == "cuda":
            mean, m2 = _fused_cuda(x, bounds, counts)
        else:
            mean, m2 = _var_mean(x, bounds, counts)
    return RunMoments(counts, mean, m2)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which an input's moments are accumulated: never below float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Scratch:
    """One reusable buffer for the shifted values, so that they never travel to main memory."""

    def __init__(self, elements: int = SCRATCH_ELEMENTS) -> None:
        self.elements = elements
        self._buffers: dict[torch.dtype, Tensor] = {}

    def like(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """An uninitialised view of x's shape and memory layout in `dtype`."""
        buffer = self._buffers.get(dtype)
        if buffer is None or buffer.numel() < x.numel():
            buffer = torch.empty(max(x.numel(), self.elements), dtype=dtype, device="cpu")
            self._buffers[dtype] = buffer
        flat = buffer[: x.numel()]
        if x.dim() > 3 and x.stride(1) == 1 and not x.is_contiguous():  # channels_last, 2d or 3d
            order = (0, *range(2, x.dim()), 1)
            back = (0, x.dim() - 1, *range(1, x.dim() - 1))
            return flat.view([x.shape[i] for i in order]).permute(back)
        return flat.view(x.shape)


def _shifted_sums(
    x: Tensor, bounds: Sequence[int], counts: Sequence[int], scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """Mean and M2 of each run from the sums Σ(x − p) and Σ(x − p)² of its rows.

    The pilot p is the mean of the first row. M2 = Σ(x−p)² − (Σ(x−p))²/n loses digits where p is
    many of a run's standard deviations from its mean: such a run, rare, is read again about its own
    mean.
    """
    pilot = x[:1].mean(list(range(2, x.dim())), dtype=accumulation_dtype(x.dtype), keepdim=True)
    rows = _row_sums(x, pilot, scratch)
    n, far = _count_columns(tuple(counts))
    sums = rows.new_zeros((2, len(counts), x.shape[1]), dtype=torch.float64)
    first, second = sums.index_add_(1, _run_of_row(tuple(bounds)), rows.double())
    offset = first.square() / n
    mean = first.div_(n).add_(pilot.flatten())
    m2 = second.sub_(offset).clamp_(min=0)
    if bool((distant := offset > m2 * far).any()):
        for index in distant.any(1).nonzero().flatten().tolist():
            own = x[bounds[index] : bounds[index + 1]]
            mean[index], m2[index] = (t[0] for t in _about_own_mean(own, mean[index], scratch))
    return mean, m2


@lru_cache(maxsize=16)
def _run_of_row(bounds: tuple[int, ...]) -> Tensor:
    """To which run each row belongs, (N,): the same for nearly all layers of a batch."""
    lengths = torch.tensor(bounds, device="cpu").diff()
    return torch.arange(len(lengths), device="cpu").repeat_interleave(lengths)


@lru_cache(maxsize=256)
def _count_columns(counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The counts and `FAR`, (S, 1) each; a run of one element has no variance to compare."""
    n = torch.tensor(counts, dtype=torch.float64, device="cpu").unsqueeze(1)
    return n, torch.where(n > 1, FAR, torch.inf)


def _about_own_mean(x: Tensor, mean: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """Mean and M2 of all rows as one run, (1, C) each, about a pilot at its mean (C,)."""
    pilot = mean.to(accumulation_dtype(x.dtype)).view(1, -1, *[1] * (x.dim() - 2))
    sums = _row_sums(x, pilot, scratch).double().sum(1, keepdim=True)
    n = x.numel() // x.shape[1]
    m2 = (sums[1] - sums[0].square() / n).clamp(min=0)
    return pilot.flatten().double() + sums[0] / n, m2


def _row_sums(x: Tensor, pilot: Tensor, scratch: Scratch) -> Tensor:
    """Σ(x − p) and Σ(x − p)² of each row, (2, N, C), in pieces that stay in the cache."""
    space = list(range(2, x.dim()))
    sums = torch.empty(2, *x.shape[:2], dtype=pilot.dtype, device="cpu")
    row = max(1, x[0].numel())
    step = scratch.elements // row
    if row > HUGE_ROW * scratch.elements and x.dim() > 3:
        return torch.stack([_slab_sums(row, pilot, scratch) for row in x.split(1)], 1)
    y = scratch.like(x[: max(1, step)], pilot.dtype)
    for first in range(0, len(x), max(1, step)):
        rows = slice(first, first + max(1, step))
        piece = x[rows]
        y = y[: len(piece)]
        torch.sub(piece, pilot, out=y)
        torch.sum(y, space, out=sums[0, rows])
        y.square_()
        torch.sum(y, space, out=sums[1, rows])
    return sums


def _slab_sums(row: Tensor, pilot: Tensor, scratch: Scratch) -> Tensor:
    """The same for one row (1, C, *) that does not fit: slabs along its first spatial axis."""
    space = [0, *range(2, row.dim())]
    sums = torch.zeros(2, row.shape[1], dtype=torch.float64, device="cpu")
    for slab in row.split(max(1, scratch.elements * row.shape[2] // row.numel()), dim=2):
        y = scratch.like(slab, pilot.dtype)
        torch.sub(slab, pilot, out=y)
        sums[0] += y.sum(space)
        y.square_()
        sums[1] += y.sum(space)
    return sums


def _fused_cuda(x: Tensor, bounds: Sequence[int], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Every stretch of runs of one length by as few kernels as its size allows.

    On small maps a launch costs more than the reading, and a batch dealt to 16 groups would launch
    16 kernels a layer.
    """
    means, m2s = [], []
    row = x.numel() // x.shape[0]
    for stretch in _stretches(tuple(bounds)):
        part = x[stretch.start : stretch.start + stretch.runs * stretch.rows]
        alone = stretch.runs == 1 or stretch.rows * row >= LONE_RUN
        var, mean = (_one_by_one if alone else _side_by_side)(part, stretch.runs)
        means.append(mean)
        m2s.append(var * (stretch.rows * (row // x.shape[1])))
    return _joined(means), _joined(m2s)


@dataclass(frozen=True)
class _Stretch:
    """Consecutive runs, each of as many rows; `start` is the first row."""

    start: int
    runs: int
    rows: int


@lru_cache(maxsize=16)
def _stretches(bounds: tuple[int, ...]) -> tuple[_Stretch, ...]:
    """The runs of a batch as stretches, in their order."""
    found, start = [], bounds[0]
    for rows, alike in groupby(stop - start for start, stop in pairwise(bounds)):
        found.append(_Stretch(start, len(list(alike)), rows))
        start += found[-1].runs * rows
    return tuple(found)


def _one_by_one(x: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """(variance, mean), (S, C) each, of `runs` equal runs that `x` consists of: a kernel each.

    The kernel behind train mode: half precision is read as it is, once, and accumulated in float32.
    """
    found = [torch.batch_norm_update_stats(run, None, None, 0.0) for run in x.chunk(runs)]
    return _stacked([var for _, var in found]), _stacked([mean for mean, _ in found])


def _side_by_side(x: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """The same by one reduction over all runs; half precision is cast, some runs at a time.

    `var_mean` returns the dtype of its input: 1e-3 off in half precision.
    """
    wide = accumulation_dtype(x.dtype)
    cut = x.unflatten(0, (runs, -1))
    dims = [1, *range(3, cut.dim())]
    at_once = runs if wide == x.dtype else max(1, CAST_ELEMENTS * runs // max(1, x.numel()))
    found = [torch.var_mean(part.to(wide), dims, correction=0) for part in cut.split(at_once)]
    return _joined([var for var, _ in found]), _joined([mean for _, mean in found])


def _stacked(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _var_mean(x: Tensor, bounds: Sequence[int], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """PyTorch's own reduction: correct everywhere, for devices without a faster one."""
    dims = [0, *range(2, x.dim())]
    means, m2s = [], []
    for (start, stop), count in zip(pairwise(bounds), counts, strict=True):
        run = x[start:stop].to(accumulation_dtype(x.dtype))
        var, mean = torch.var_mean(run, dims, correction=0)
        means.append(mean)
        m2s.append(var * count)
    return torch.stack(means), torch.stack(m2s)
