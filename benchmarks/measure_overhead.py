"""What measuring costs against a plain eval pass over the same batches.

    python benchmarks/measure_overhead.py                 # ResNet-50, 224x224, both layouts
    python benchmarks/measure_overhead.py --device cuda --batch-size 256 --dtype bf16

Four things are timed in turn, five times over, in one process: a plain eval forward, the deployed
pass (the same forward with every BatchNorm input measured), `measure` with attribute="none"
(deployed pass, mini-batch pass, comparison, jackknife), and with attribute="all" (own and inherited
shift of all samples, and the search for the layers that matter on up to 128 of them). Printed are
medians and the ratios to the plain pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import bnaudit
from bnaudit.engine.batches import Batch
from bnaudit.engine.collect import Collector
from bnaudit.engine.layers import find_layers
from bnaudit.engine.state import inference, intercepted
from bnaudit.stats.jackknife import deal, group_count
from bnaudit.targets.models import build_model


def main() -> None:
    """Parse, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{args.model}, {args.image_size} px, batch {args.batch_size}, {args.batches} batches,")
    print(f"{args.dtype}, {name}, {args.threads} threads, torch {torch.__version__}")
    print(f"median of {args.repeats} interleaved runs\n")
    print(
        f"{'layout':<14}{'plain':>9}{'deployed/plain':>16}{'measure/plain':>15}"
        f"{'with attribution/plain':>24}"
    )
    for layout in ("contiguous", "channels_last"):
        times = run(args, device, layout)
        plain = statistics.median(times[0])
        paired = [
            statistics.median(b / a for a, b in zip(times[0], t, strict=True)) for t in times[1:]
        ]
        print(
            f"{layout:<14}{plain:>8.2f}s{paired[0]:>16.3f}{paired[1]:>15.3f}{paired[2]:>24.3f}",
            flush=True,
        )


def run(args: argparse.Namespace, device: torch.device, layout: str) -> list[list[float]]:
    """Times of each repeat: plain, deployed, measure without and with attribution."""
    torch.manual_seed(0)
    model = build_model(args.model, {}).eval().to(device)
    last = layout == "channels_last"
    batches = [
        torch.randn(args.batch_size, 3, args.image_size, args.image_size)
        for _ in range(args.batches)
    ]
    if last:
        model = model.to(memory_format=torch.channels_last)
    batches = [b.to(device, memory_format=_format(last)) for b in batches]
    contenders = [
        lambda: plain_pass(model, batches, args.dtype),
        lambda: deployed_pass(model, batches, args.dtype),
        lambda: whole(model, batches, args.dtype, last, "none"),
        lambda: whole(model, batches, args.dtype, last, "all"),
    ]
    for contender in contenders:  # warm-up
        contender()
    times: list[list[float]] = [[], [], [], []]
    for _ in range(args.repeats):
        for contender, taken in zip(contenders, times, strict=True):
            taken.append(timed(contender, device))
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
        collector.finish()


def whole(
    model: nn.Module, batches: list[torch.Tensor], dtype: str, channels_last: bool, attribute: str
) -> None:
    """All that `measure` does."""
    bnaudit.measure(model, batches, dtype=dtype, channels_last=channels_last, attribute=attribute)


def casting(device: torch.device, dtype: str) -> torch.autocast:
    """Autocast to bf16, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bf16")


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of wall time, the device's work included."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


if __name__ == "__main__":
    main()
