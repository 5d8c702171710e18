"""What sharing the work over ranks gains: `measure` and `recalibrate` on 1, 2 and 4 of them.

    python benchmarks/ranks.py                        # ResNet-18, 64x64, 1,024 images from memory
    python benchmarks/ranks.py --ranks 1,2 --images 2000 --image-size 112
    python benchmarks/ranks.py --device cuda --batch-size 256 --images 20000 --image-size 224
    python benchmarks/ranks.py --collectives          # what one exchange takes, by its size

Ranks are processes with one thread each, over gloo, for as many as there are cores; with GPUs one
rank a GPU. All sizes take turns, several times over; medians of the ratios, paired turn by turn.

`x one`: images a second against one rank. A machine that has other work to do cannot give a second
process all that it gives the first, so as many processes that work alone, at once, on the same job
take turns too: `at best` is what these reach together, `of best` the ranks' share of that.
`x processor`: the processor's seconds of one rank, over those of the busiest of several: what the
ranks would gain where each has a core to itself. On GPUs it says nothing.
`collectives`, `waiting`: shares of the ranks' time, as `run_time` has them.

The model's weights are random, its statistics those of a moving average over a few small batches;
images and labels are random. `recalibrate` verifies on as many images as it calibrates on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from rank_pool import RankPool, Turn, Which
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.engine.layers import find_layers
from bnaudit.engine.ranks import joined
from bnaudit.results.run_time import RunTime
from bnaudit.targets.models import build_model

CLASSES = 10
"""Labels are among the first so many, which every model has."""


@dataclass(frozen=True)
class Workload:
    """A model and images, made alike in every process. Called with the device: ready to use."""

    model: str
    images: int
    image_size: int
    batch_size: int

    def __call__(self, device: torch.device) -> Bench:
        torch.manual_seed(0)
        model = build_model(self.model, {})
        size = self.image_size, self.image_size
        for layer in find_layers(model):
            layer.module.momentum = 0.5
        model.train()
        with torch.no_grad():
            for _ in range(10):
                model(torch.randn(16, 3, *size))
        calibration, verification = (
            TensorDataset(torch.randn(n, 3, *size), torch.randint(CLASSES, (n,)))
            for n in (self.images, self.images)
        )
        return Bench(model.eval().to(device), calibration, verification, self.batch_size)


@dataclass(frozen=True)
class Bench:
    """What is worked on, in one process."""

    model: nn.Module
    data: TensorDataset
    held_out: TensorDataset
    batch_size: int


@dataclass(frozen=True)
class Measure:
    """`measure`, with own and inherited shift on so many samples."""

    attribute: int | Literal["none"]

    def __call__(self, bench: Bench, ranks: Which) -> RunTime | None:
        return bnaudit.measure(
            bench.model,
            bench.data,
            batch_size=bench.batch_size,
            attribute=self.attribute,
            ranks=ranks,
        ).run_time


@dataclass(frozen=True)
class Recalibrate:
    """`recalibrate` with a method, verified on held-out images."""

    method: str

    def __call__(self, bench: Bench, ranks: Which) -> RunTime | None:
        result = bnaudit.recalibrate(
            bench.model,
            bench.data,
            verify=bench.held_out,
            method=self.method,
            batch_size=bench.batch_size,
            ranks=ranks,
        )
        result.revert()
        return result.report.run_time


Job = Callable[[Bench, Which], RunTime | None]

JOBS: dict[str, Job] = {
    "measure, no attribution": Measure("none"),
    "measure": Measure(512),
    "recalibrate, exact": Recalibrate("exact"),
    "recalibrate, precise": Recalibrate("precise"),
}


@dataclass(frozen=True)
class Repeat:
    """One job on one number of ranks, beside one rank and beside as many processes alone."""

    images_per_second: float
    against_one: float
    at_best: float
    by_processor: float
    collectives: float
    waiting: float


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--ranks", type=_numbers, default=[1, 2, 4], help="for example 1,2,4")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="resnet18", help="of torchvision, or TYPE:NAME")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB")
    parser.add_argument("--collectives", action="store_true", help="time exchanges, nothing else")
    args = parser.parse_args()
    if args.collectives:
        exchanges(args.ranks)
        return
    places = _places(args.device)
    sizes = [size for size in args.ranks if size <= places]
    left_out = ", ".join(str(size) for size in args.ranks if size > places)
    what = "processor cores" if args.device == "cpu" else "GPUs"
    if left_out:
        print(f"left out: {left_out} ranks, with {places} {what} here")
    if args.device == "cpu" and torch.cuda.device_count() < 2:
        print("GPUs are left out: fewer than two here")
    if not sizes:
        return
    model = args.model if ":" in args.model else f"torchvision:{args.model}"
    workload = Workload(model, args.images, args.image_size, args.batch_size)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU, one thread a rank"
    print(f"{model}, {args.image_size} px, {args.images} images, batch {args.batch_size},")
    print(f"{name}, torch {torch.__version__}; median of {args.repeats} interleaved runs")
    contest(workload, sizes, args)
    if args.device == "cpu" and torch.cuda.device_count() > 1:
        print("for one rank a GPU: --device cuda")


def contest(workload: Workload, sizes: list[int], args: argparse.Namespace) -> None:
    """Every job on every number of ranks, in turn."""
    devices = [
        torch.device("cpu") if args.device == "cpu" else torch.device("cuda", index)
        for index in range(max(sizes))
    ]
    with ExitStack() as stack:
        pools = {size: stack.enter_context(RankPool(workload, devices[:size])) for size in sizes}
        for name in args.jobs:
            print(
                f"\n{name:<26}{'images/s':>9}{'x one':>7}{'at best':>9}{'of best':>9}"
                f"{'x processor':>13}{'collectives':>13}{'waiting':>9}"
            )
            found = repeats(pools, JOBS[name], workload.images, args.repeats)
            for size in sizes:
                print(f"{size:>8} {'ranks' if size > 1 else 'rank':<17}" + _row(found[size]))
            sys.stdout.flush()


def repeats(
    pools: dict[int, RankPool], job: Job, images: int, times: int
) -> dict[int, list[Repeat]]:
    """By the number of ranks; a first turn of each does not count."""
    for pool in pools.values():
        pool.together(job)
    found: dict[int, list[Repeat]] = {size: [] for size in pools}
    for _ in range(times):
        one = pools[min(pools)].alone(job)
        for size, pool in pools.items():
            shared, apart = (pool.together(job), pool.apart(job)) if size > 1 else (one, one)
            found[size].append(_compared(one, shared, apart, images))
    return found


def _compared(one: Turn, shared: Turn, apart: Turn, images: int) -> Repeat:
    spent = shared.parts[0].answer.seconds.shares
    return Repeat(
        images_per_second=images / shared.seconds,
        against_one=one.seconds / shared.seconds,
        at_best=len(apart.parts) * one.seconds / apart.seconds,
        by_processor=one.processor_seconds / shared.processor_seconds,
        collectives=spent.collectives,
        waiting=spent.waiting,
    )


def _row(found: list[Repeat]) -> str:
    def median(of: Callable[[Repeat], float]) -> float:
        return statistics.median(map(of, found))

    return (
        f"{median(lambda r: r.images_per_second):>9.1f}"
        f"{median(lambda r: r.against_one):>7.2f}"
        f"{median(lambda r: r.at_best):>9.2f}"
        f"{median(lambda r: r.against_one / r.at_best):>9.0%}"
        f"{median(lambda r: r.by_processor):>13.2f}"
        f"{median(lambda r: r.collectives):>13.1%}"
        f"{median(lambda r: r.waiting):>9.1%}"
    )


def exchanges(sizes: list[int]) -> None:
    """What a gather takes on so many ranks of this machine, by the bytes that each one sends."""
    sent = [8, 8 * (2 * 64 + 1), 8 * (2 * 2048 + 1), 2**20, 2**24]
    sizes = [size for size in sizes if size > 1]
    print(f"{'bytes a rank':<14}" + "".join(f"{size:>7} ranks" for size in sizes))
    with ExitStack() as stack:
        devices = [torch.device("cpu")] * max(sizes)
        pools = [stack.enter_context(RankPool(_nothing, devices[:size])) for size in sizes]
        for count in sent:
            turns = [pool.together(Exchange(count)) for pool in pools]
            taken = [statistics.median(turn.parts[0].answer) for turn in turns]
            print(f"{count:<14,}" + "".join(f"{1e3 * one:>10.2f} ms" for one in taken), flush=True)


@dataclass(frozen=True)
class Exchange:
    """Gathers of so many bytes from each rank, one after another: the seconds of each."""

    sent: int

    def __call__(self, nothing: None, which: Which) -> list[float]:
        values = torch.zeros(self.sent // 8, dtype=torch.float64)
        times = 200 if self.sent < 2**20 else 10
        with joined(which) as ranks:
            return [_seconds(lambda: ranks.gather_tensor(values)) for _ in range(times)]


def _seconds(function: Callable[[], list[Tensor]]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _nothing(device: torch.device) -> None:
    return None


def _places(device: str) -> int:
    return torch.cuda.device_count() if device == "cuda" else len(os.sched_getaffinity(0))


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


class _Raw(argparse.RawDescriptionHelpFormatter):
    """The docstring as it stands."""


if __name__ == "__main__":
    main()
