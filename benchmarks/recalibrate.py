"""What recalibrating costs and what it leaves wrong: bnaudit's methods beside the peers'.

    python benchmarks/recalibrate.py                 # ResNet-50, 224x224, 128 images, batch 16
    python benchmarks/recalibrate.py --device cuda --batch-size 256 --images 1024 --dtype tf32
    python benchmarks/recalibrate.py --residuals     # a CIFAR ResNet-20 at batch 4, 16, 64 and 250

Every contender gets the same model and the same batches, already on the device; they are timed in
turn, five times over, in one process, each with what it needs to put the new statistics into the
model. bnaudit's methods include the trial run of a few samples that comes before each of them.

The residual is the largest layer ESM under the new statistics, by `bnaudit.measure` on the same
batches. On CUDA the time is that between two events of the stream; `float32` keeps all digits
there, `tf32` lets products drop some.

Peak memory is what a contender adds to a process that holds the model and the batches: on the CPU a
process of its own for each. Images and weights are random. fvcore (group `bench`) is left out where
it is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.optim.swa_utils import update_bn

import bnaudit
from bnaudit.engine.batches import Batch, default_forward
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.exact import exact
from bnaudit.engine.layers import find_layers
from bnaudit.engine.memory import in_words
from bnaudit.engine.population import Calibration, Result
from bnaudit.engine.sequential import sequential
from bnaudit.engine.train_mode import ema, precise
from bnaudit.engine.trial import Trial, try_out
from bnaudit.stats.jackknife import deal, group_count
from bnaudit.targets.models import build_model

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn.precise_bn import update_bn_stats
except ImportError:
    update_bn_stats = None

CIFAR = Path(__file__).resolve().parents[1] / "tests" / "engine" / "cifar_resnet.py"


@dataclass
class Bench:
    """A model, its batches, and how they go through it."""

    model: nn.Module
    batches: list[Tensor]
    dtype: str
    channels_last: bool

    @property
    def device(self) -> torch.device:
        return self.batches[0].device

    def casting(self) -> torch.autocast:
        """Autocast to bf16, or nothing."""
        enabled = self.dtype == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


Contender = Callable[[Bench], None]


def plain(bench: Bench) -> None:
    """What a user's evaluation loop does, outputs brought to the host once a batch."""
    with torch.no_grad(), bench.casting():
        for batch in bench.batches:
            bench.model(batch).argmax(1).cpu()


def ours(method: Callable[[Calibration, Trial], Result]) -> Contender:
    """One of bnaudit's methods, from the trial run to the new statistics in the model."""

    def recalibrate(bench: Bench) -> None:
        autocast = torch.bfloat16 if bench.dtype == "bf16" else None
        conditions = Conditions(default_forward, bench.device, autocast=autocast)
        layers = find_layers(bench.model)
        samples = sum(map(len, bench.batches))
        groups = deal(samples, group_count(samples)).split([len(b) for b in bench.batches])
        data = zip(bench.batches, groups, strict=True)
        batches = [Batch(index, one, dealt) for index, (one, dealt) in enumerate(data)]
        with conditions.entered(bench.model):
            trial = try_out(bench.model, layers, batches[0], conditions)
            work = Calibration(
                bench.model,
                layers,
                batches,
                group_count(samples),
                conditions,
                rule=lambda layer, mean, var: (mean, var),
            )
            result = method(work, trial)
        for layer, new in result.statistics.items():
            for buffer, values in zip(layer.estimated, new, strict=True):
                buffer.copy_(values)

    return recalibrate


def fvcore(bench: Bench) -> None:
    """fvcore's PreciseBN: it takes layers in training mode, and leaves the mode to its caller."""
    bench.model.train()
    with bench.casting():
        update_bn_stats(bench.model, bench.batches, len(bench.batches))
    bench.model.eval()


def swa_utils(bench: Bench) -> None:
    """PyTorch's own, for averaged weights."""
    with bench.casting():
        update_bn(bench.batches, bench.model)


CONTENDERS: dict[str, Contender] = {
    "plain eval pass": plain,
    "exact": ours(exact),
    "precise": ours(lambda work, trial: precise(work)),
    "ema": ours(lambda work, trial: ema(work, None)),
    **({"fvcore": fvcore} if update_bn_stats is not None else {}),
    "update_bn": swa_utils,
    "sequential": ours(sequential),
}
PLAIN, SEQUENTIAL = "plain eval pass", "sequential"
WITH_SEQUENTIAL = [PLAIN, "exact", SEQUENTIAL]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "tf32", "bf16"], default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--sequential-images",
        type=int,
        default=32,
        help="sequential takes half as many passes as there are layers: on so many images, once; "
        "0: not at all",
    )
    parser.add_argument(
        "--skip",
        nargs="+",
        default=[],
        choices=[*list(CONTENDERS)[1:], "time", "residual", "memory"],
        help="contenders and columns to leave out",
    )
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: seconds of the process; steadier on a busy machine, with one thread",
    )
    parser.add_argument("--residuals", action="store_true", help="by batch size, and nothing else")
    args = parser.parse_args()
    if args.residuals:
        args.image_size, args.channels_last = 32, False
        args.images = max(args.images, 2000)
    torch.set_num_threads(args.threads)
    if update_bn_stats is None:
        print("without fvcore: it is not installed (pip install fvcore)")
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "CPU"
    layout = "channels_last" if args.channels_last else "contiguous"
    print(f"{args.dtype}, {layout}, {name}, {args.threads} threads, torch {torch.__version__}")
    if args.residuals:
        residuals(args)
    else:
        contest(args)


def contest(args: argparse.Namespace) -> None:
    """Time, residual and memory of every contender."""
    names = [name for name in CONTENDERS if name not in args.skip]
    few = args.sequential_images if SEQUENTIAL in names else 0
    names = [name for name in names if name != SEQUENTIAL]
    grown, fewer = {}, {}
    if "memory" not in args.skip:  # first: a process inherits the peak of the one that starts it
        grown = {name: memory(args, name, args.images) for name in names}
        fewer = {name: memory(args, name, few) for name in WITH_SEQUENTIAL if few}
    print(f"{args.model}, {args.image_size} px, batch {args.batch_size}, {args.images} images,")
    print(f"median of {args.repeats} interleaved runs, {args.clock} time\n")
    show(args, names, args.images, args.repeats, grown)
    if few:
        print(f"\nthe same with {few} images, once\n")
        taken = show(args, WITH_SEQUENTIAL, few, 1, fewer)
        if taken:
            print(f"\nsequential / exact: {taken[SEQUENTIAL] / taken['exact']:.1f}")


def show(
    args: argparse.Namespace, names: list[str], images: int, repeats: int, grown: dict[str, int]
) -> dict[str, float]:
    """Print a row a contender; the times."""
    bench = build(args, args.model, {}, args.batch_size, images)
    left = {} if "residual" in args.skip else {name: residual(bench, name) for name in names}
    taken = {} if "time" in args.skip else times(bench, names, repeats, args.clock)
    print(f"{'':<17}{'time':>9}{'images/s':>10}{'/plain':>8}{'residual':>10}{'peak memory':>13}")
    for name in names:
        cells = [f"{'–':>27}", f"{'–':>10}", f"{'–':>13}"]
        if taken:
            paired = zip(taken[name], taken[PLAIN], strict=True)
            ratio = statistics.median(a / b for a, b in paired)
            seconds = statistics.median(taken[name])
            cells[0] = f"{seconds:>8.3f}s{images / seconds:>10.0f}{ratio:>8.3f}"
        if left:
            cells[1] = f"{left[name]:>10.1e}"
        if grown:
            cells[2] = f"{in_words(grown[name]):>13}"
        print(f"{name:<17}" + "".join(cells), flush=True)
    return {name: statistics.median(times) for name, times in taken.items()}


def residuals(args: argparse.Namespace) -> None:
    """The largest layer ESM that each contender leaves, by batch size."""
    sizes = (4, 16, 64, 250)
    print(f"CIFAR ResNet-20, 32 px, {args.images} images; largest layer ESM by batch size\n")
    print(f"{'':<17}" + "".join(f"{size:>10}" for size in sizes))
    for name in CONTENDERS:
        if name in (*args.skip, SEQUENTIAL):
            continue
        cells = []
        for size in sizes:
            bench = build(args, f"{CIFAR}:CifarResNet", {"n": 3}, size, args.images)
            cells.append(f"{residual(bench, name):>10.1e}")
        print(f"{name:<17}" + "".join(cells), flush=True)


def build(
    args: argparse.Namespace, model: str, model_args: dict[str, Any], batch_size: int, images: int
) -> Bench:
    """The same model and images every time."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = args.dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = args.dtype == "tf32"
    built = build_model(model, model_args).eval()
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    built = built.to(device=torch.device(args.device), memory_format=layout)
    # Smooth noise whose contrast and brightness differ: batches of few images differ as well.
    x = interpolate(torch.randn(images, 3, 7, 7), size=args.image_size, mode="bilinear")
    x += 0.3 * torch.randn_like(x)
    x = x * torch.empty(images, 1, 1, 1).uniform_(0.25, 1.75) + torch.randn(images, 1, 1, 1)
    batches = [b.to(args.device, memory_format=layout) for b in x.split(batch_size)]
    dtype = "bf16" if args.dtype == "bf16" else "float32"
    return Bench(built, batches, dtype, args.channels_last)


def residual(bench: Bench, name: str) -> float:
    """The largest layer ESM after a contender; the model is as before afterwards."""
    before = {key: value.clone() for key, value in bench.model.state_dict().items()}
    CONTENDERS[name](bench)
    measured = bnaudit.measure(
        bench.model,
        bench.batches,
        dtype=bench.dtype,
        channels_last=bench.channels_last,
        attribute="none",
    )
    bench.model.load_state_dict(before)
    return max(layer.total_shift.plain for layer in measured.layers if layer.total_shift)


def times(bench: Bench, names: list[str], repeats: int, clock: str) -> dict[str, list[float]]:
    """Seconds of every repeat, after one that does not count."""
    before = {key: value.clone() for key, value in bench.model.state_dict().items()}
    taken: dict[str, list[float]] = {name: [] for name in names}
    plain(bench)
    for _ in range(repeats):
        for name in names:
            bench.model.load_state_dict(before)
            taken[name].append(timed(bench, CONTENDERS[name], clock))
    return taken


def timed(bench: Bench, contender: Contender, clock: str) -> float:
    """Seconds; on CUDA between two events of the stream, with all that it waits for."""
    if bench.device.type != "cuda":
        now = time.process_time if clock == "cpu" else time.perf_counter
        start = now()
        contender(bench)
        return now() - start
    torch.cuda.synchronize(bench.device)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record(torch.cuda.current_stream(bench.device))
    contender(bench)
    ended.record(torch.cuda.current_stream(bench.device))
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000


def memory(args: argparse.Namespace, name: str, images: int) -> int:
    """Bytes that a contender adds at its worst moment, measured in a process of its own."""
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_silent) as pool:
        return pool.submit(_grown, args, name, images).result()


def _silent() -> None:
    warnings.simplefilter("ignore")


def _grown(args: argparse.Namespace, name: str, images: int) -> int:
    torch.set_num_threads(args.threads)
    bench = build(args, args.model, {}, args.batch_size, images)
    if bench.device.type == "cuda":
        plain(bench)  # the libraries' own workspaces
        torch.cuda.reset_peak_memory_stats(bench.device)
        held = torch.cuda.memory_allocated(bench.device)
        CONTENDERS[name](bench)
        return torch.cuda.max_memory_allocated(bench.device) - held
    held = psutil.Process().memory_info().rss
    CONTENDERS[name](bench)
    return max(0, _peak_rss() - held)


def _peak_rss() -> int:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()
