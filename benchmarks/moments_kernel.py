"""Which way of reading a BatchNorm input's moments is fast, and which is right.

    python benchmarks/moments_kernel.py                     # CPU
    python benchmarks/moments_kernel.py --device cuda --dtype bf16
    python benchmarks/moments_kernel.py --device cuda --runs 16     # a batch dealt to 16 groups

Every contender reads the same tensors in turn, five times over, in one process. Printed are the
median rate in GB/s read, and the errors against float64: of the mean in standard deviations, of
the variance relative, the largest over channels.

With `--runs` a batch consists of so many equal runs, each of which gets moments of its own: by a
kernel for each, by one reduction over all, and as bnaudit chooses. There the time of a call counts,
launches included: it is printed beside the rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bnaudit.stats import kernels
from bnaudit.stats.kernels import Scratch, run_moments

SHAPES = (
    (32, 64, 112, 112),
    (32, 256, 56, 56),
    (32, 512, 28, 28),
    (32, 1024, 14, 14),
    (32, 2048, 7, 7),
    (2, 16, 1024, 1024),
)
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES_OF_RUNS = (
    (32, 64, 112, 112),
    (32, 256, 56, 56),
    (32, 512, 28, 28),
    (32, 1024, 14, 14),
    (32, 2048, 7, 7),
    (32, 16, 32, 32),
    (32, 64, 8, 8),
)
"""The inputs of a ResNet-50 and of a ResNet-20 for CIFAR, a batch of 32."""

REPEATS = 5

CALLS = 20
"""Timed together on a device: a single one is shorter than what it takes to hand it over."""

Contender = Callable[[Tensor], tuple[Tensor, Tensor]]


def ours(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cache-sized shifted sums on the CPU, a fused kernel on CUDA."""
    moments = run_moments(x, (0, len(x)), SCRATCH)
    return moments.mean[0], moments.m2[0] / moments.counts[0]


def var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's reduction."""
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    return mean, var


def update_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel behind train mode."""
    mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
    return mean, var


def raw_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """E[x²] − E[x]² in float32: what not to do."""
    wide = x.float()
    mean = wide.mean((0, 2, 3))
    return mean, wide.square().mean((0, 2, 3)) - mean.square()


def a_kernel_a_run(x: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """The kernel behind train mode, once a run."""
    var, mean = kernels._one_by_one(x, runs)
    return mean, var


def side_by_side(x: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """One reduction over all runs; half precision is cast before."""
    var, mean = kernels._side_by_side(x, runs)
    return mean, var


def as_chosen(x: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """What `run_moments` does on this device for runs of this size."""
    rows = len(x) // runs
    moments = run_moments(x, tuple(range(0, len(x) + 1, rows)), SCRATCH)
    return moments.mean, moments.m2 / moments.counts[0]


SCRATCH = Scratch()
OF_RUNS: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "a kernel a run": a_kernel_a_run,
    "side by side": side_by_side,
    "as chosen": as_chosen,
}
CONTENDERS: dict[str, Contender] = {
    "shifted sums": ours,
    "var_mean": var_mean,
    "update_stats": update_stats,
    "E[x²]−E[x]²": raw_moments,
}


def main() -> None:
    """Parse, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--offset", type=float, default=3.0, help="mean in standard deviations")
    parser.add_argument("--runs", type=int, default=0, help="equal runs in a batch; divides 32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shapes, contenders = SHAPES, CONTENDERS
    if args.runs:
        shapes = SHAPES_OF_RUNS
        contenders = {name: partial(each, runs=args.runs) for name, each in OF_RUNS.items()}
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{args.dtype} on {name}, {args.threads} threads, mean {args.offset:g} std,")
    print(f"torch {torch.__version__}, median of {REPEATS} interleaved runs\n")
    width = 36 if args.runs else 26
    print(f"{'shape':<22}{'layout':<9}" + "".join(f"{name:>{width}}" for name in contenders))
    for shape in shapes:
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.manual_seed(0)
            x = torch.randn(shape, device=args.device).add_(args.offset).to(DTYPES[args.dtype])
            x = x.contiguous(memory_format=layout)
            name = "last" if layout is torch.channels_last else "first"
            cells = "".join(f"{cell:>{width}}" for cell in contest(x, contenders, args.runs))
            print(f"{shape!s:<22}{name:<9}{cells}", flush=True)


def contest(x: Tensor, contenders: dict[str, Contender], runs: int) -> list[str]:
    """One cell a contender: rate, error of the mean, of the variance; of runs the time too."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(REPEATS + 1):
        for name, contender in contenders.items():
            taken = seconds(partial(contender, x), x.device)
            if repeat:
                times[name].append(taken)
    wide = x.double().unflatten(0, (max(1, runs), -1))
    mean, var = wide.mean((1, 3, 4)), wide.var((1, 3, 4), correction=0)
    cells = []
    for name, contender in contenders.items():
        got_mean, got_var = (t.double().to(x.device).view_as(mean) for t in contender(x))
        taken = statistics.median(times[name])
        rate = x.numel() * x.element_size() / taken / 1e9
        mean_error = float(((got_mean - mean).abs() / var.sqrt()).max())
        var_error = float(((got_var - var).abs() / var).max())
        time_of = f"{1e6 * taken:.0f} us " if runs else ""
        cells.append(f"{time_of}{rate:.1f} GB/s {mean_error:.0e} {var_error:.0e}")
    return cells


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of one call: by the clock on the CPU; by events in the stream on CUDA, over several calls."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(CALLS):
        call()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000 / CALLS


if __name__ == "__main__":
    main()
