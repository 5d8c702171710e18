"""Which way of reading a BatchNorm input's moments is fast, and which is right.

    python benchmarks/moments_kernel.py                     # CPU
    python benchmarks/moments_kernel.py --device cuda --dtype bf16

Every contender reads the same tensors in turn, five times over, in one process. Printed are the
median rate in GB/s read, and the errors against float64: of the mean in standard deviations, of
the variance relative, the largest over channels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

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
REPEATS = 5

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


SCRATCH = Scratch()
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
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.dtype} on {args.device}, {args.threads} threads, mean {args.offset:g} std,")
    print(f"torch {torch.__version__}, median of {REPEATS} interleaved runs\n")
    print(f"{'shape':<22}{'layout':<9}" + "".join(f"{name:>26}" for name in CONTENDERS))
    for shape in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.manual_seed(0)
            x = torch.randn(shape, device=args.device).add_(args.offset).to(DTYPES[args.dtype])
            x = x.contiguous(memory_format=layout)
            name = "last" if layout is torch.channels_last else "first"
            cells = "".join(f"{cell:>26}" for cell in contest(x))
            print(f"{shape!s:<22}{name:<9}{cells}", flush=True)


def contest(x: Tensor) -> list[str]:
    """One cell a contender: rate, error of the mean, error of the variance."""
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for repeat in range(REPEATS + 1):
        for name, contender in CONTENDERS.items():
            start = time.perf_counter()
            contender(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            if repeat:
                times[name].append(time.perf_counter() - start)
    wide = x.double()
    mean, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3), correction=0)
    cells = []
    for name, contender in CONTENDERS.items():
        got_mean, got_var = (t.double().to(x.device) for t in contender(x))
        rate = x.numel() * x.element_size() / statistics.median(times[name]) / 1e9
        mean_error = float(((got_mean - mean).abs() / var.sqrt()).max())
        var_error = float(((got_var - var).abs() / var).max())
        cells.append(f"{rate:.1f} GB/s {mean_error:.0e} {var_error:.0e}")
    return cells


if __name__ == "__main__":
    main()
