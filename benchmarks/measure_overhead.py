"""What measuring costs against a plain eval pass over the same batches.

    python benchmarks/measure_overhead.py                 # ResNet-50, 224x224, both layouts
    python benchmarks/measure_overhead.py --device cuda --batch-size 32 256 1024 \\
        --dtype tf32 bf16 --batches 8 --skip attribution

Four things are timed in turn, five times over, in one process: a plain eval forward, the deployed
pass (the same forward with every BatchNorm input measured), `measure` with attribute="none"
(deployed pass, mini-batch pass, comparison, jackknife), and with attribute="all" (own and inherited
shift of all samples, and the search for the layers that matter on up to 128 of them). Printed are
medians, images per second, and the ratios to the plain pass. On CUDA the time is that between two
events of the stream; `float32` keeps all digits there, `tf32` lets products drop some.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

import bnaudit
from bnaudit.engine.batches import Batch
from bnaudit.engine.collect import Collector
from bnaudit.engine.layers import find_layers
from bnaudit.engine.ranks import ALONE
from bnaudit.engine.state import inference, intercepted
from bnaudit.stats.jackknife import deal, group_count
from bnaudit.targets.models import build_model

PLAIN = "plain"
OURS = ("deployed", "measure", "attribution")


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    dtype: str
    batch_size: int
    channels_last: bool


def main() -> None:
    """Parse, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "tf32", "bf16"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[32])
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--skip",
        nargs="+",
        default=[],
        choices=OURS,
        help="what is not timed beside the plain pass",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    names = [name for name in OURS if name not in args.skip]
    print(f"{args.model}, {args.image_size} px, {args.batches} batches, {name},")
    print(f"{args.threads} threads, torch {torch.__version__}")
    print(f"median of {args.repeats} interleaved runs\n")
    print(
        f"{'dtype':<9}{'batch':>6}  {'layout':<14}{'plain':>9}{'images/s':>10}"
        + "".join(f"{name:>13}{'/plain':>8}" for name in names)
    )
    for dtype, batch_size, last in product(
        args.dtype or ["float32"], args.batch_size, (False, True)
    ):
        show(args, Case(dtype, batch_size, last), device, names)


def show(args: argparse.Namespace, case: Case, device: torch.device, names: list[str]) -> None:
    """Time and print one row; images per second and the ratio of each of `names`."""
    images = case.batch_size * args.batches
    times = run(args, case, device, names)
    plain = times[PLAIN]
    layout = "channels_last" if case.channels_last else "contiguous"
    cells = ""
    for name in names:
        ratio = statistics.median(b / a for a, b in zip(plain, times[name], strict=True))
        cells += f"{images / statistics.median(times[name]):>11.0f}/s{ratio:>8.3f}"
    taken = statistics.median(plain)
    print(
        f"{case.dtype:<9}{case.batch_size:>6}  {layout:<14}{taken:>8.3f}s{images / taken:>10.0f}"
        f"{cells}",
        flush=True,
    )


def run(
    args: argparse.Namespace, case: Case, device: torch.device, names: list[str]
) -> dict[str, list[float]]:
    """Seconds of each repeat, by contender."""
    torch.backends.cudnn.allow_tf32 = case.dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = case.dtype == "tf32"
    torch.manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    model = build_model(args.model, {}).eval().to(device=device, memory_format=layout)
    shape = (case.batch_size, 3, args.image_size, args.image_size)
    batches = [torch.randn(shape).to(device, memory_format=layout) for _ in range(args.batches)]
    dtype, last = "bf16" if case.dtype == "bf16" else "float32", case.channels_last
    contenders: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain_pass(model, batches, dtype),
        "deployed": lambda: deployed_pass(model, batches, dtype),
        "measure": lambda: whole(model, batches, dtype, last, "none"),
        "attribution": lambda: whole(model, batches, dtype, last, "all"),
    }
    times: dict[str, list[float]] = {name: [] for name in (PLAIN, *names)}
    for name in times:  # warm-up
        contenders[name]()
    for _ in range(args.repeats):
        for name, taken in times.items():
            taken.append(timed(contenders[name], device))
    return times


def plain_pass(model: nn.Module, batches: list[torch.Tensor], dtype: str) -> None:
    """What a user's evaluation loop does, outputs brought to the host once a batch."""
    with torch.no_grad():
        for batch in batches:
            with casting(batch.device, dtype):
                output = model(batch)
            output.argmax(1).cpu()


def deployed_pass(model: nn.Module, batches: list[torch.Tensor], dtype: str) -> None:
    """The same with every BatchNorm input measured."""
    layers = find_layers(model)
    samples = sum(len(b) for b in batches)
    groups = deal(samples, group_count(samples))
    collector = Collector(group_count(samples), len(batches[0]))
    with inference(model):
        for index, data in enumerate(batches):
            first = index * len(batches[0])
            collector.start(Batch(index, data, groups[first : first + len(data)]))
            with intercepted(layers, collector), casting(data.device, dtype):
                output = model(data)
            collector.end()
            output.argmax(1).cpu()
        collector.finish(layers, ALONE)


def whole(
    model: nn.Module, batches: list[torch.Tensor], dtype: str, channels_last: bool, attribute: str
) -> None:
    """All that `measure` does."""
    bnaudit.measure(model, batches, dtype=dtype, channels_last=channels_last, attribute=attribute)


def casting(device: torch.device, dtype: str) -> torch.autocast:
    """Autocast to bf16, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bf16")


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of wall time; on CUDA between two events of the stream, waits included."""
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record(torch.cuda.current_stream(device))
    function()
    ended.record(torch.cuda.current_stream(device))
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000


if __name__ == "__main__":
    main()
