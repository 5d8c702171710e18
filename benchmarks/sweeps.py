"""What more values cost a sweep: its time with 8 values beside that with 2, in one process.

    python benchmarks/sweeps.py                      # ResNet-20, 32x32, 256 images a part
    python benchmarks/sweeps.py --kinds momentum --runs 5
    python benchmarks/sweeps.py --device cuda --images 4096 --batch-size 256 --clock wall

Each kind is run with both numbers of values in turn, several times over; medians of the ratios,
paired run by run. If every value had its own run the ratio would be 4. What a sweep shares: reading
and decoding the data, the estimates, exact statistics, and of `momentum` the pass in mini-batches.
The images are JPEG files in memory, decoded by Pillow as they are read; weights, images and labels
are random. Both numbers of values span the same range; `prior` recalibrates on a quarter of the
images (a prior is for few), `samples` on up to half of them, each size with all its draws.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bnaudit.results.sweep import Kind, Sweep
from bnaudit.targets.models import build_model
from bnaudit.verbs.sweep_batch_size import sweep_batch_size
from bnaudit.verbs.sweep_example_weight import sweep_example_weight
from bnaudit.verbs.sweep_momentum import sweep_momentum
from bnaudit.verbs.sweep_prior import sweep_prior
from bnaudit.verbs.sweep_samples import sweep_samples

CIFAR = Path(__file__).resolve().parents[1] / "tests" / "engine" / "cifar_resnet.py"

CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}


class Photos(Dataset[tuple[Tensor, int]]):
    """Random images as JPEG bytes, decoded when they are read."""

    def __init__(self, images: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._files = []
        for _ in range(images):
            file = io.BytesIO()
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((32, 32)).save(file, "JPEG")
            self._files.append(file.getvalue())
        self._labels = rng.integers(0, 10, images)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = np.asarray(Image.open(io.BytesIO(self._files[index])))
        tensor = torch.tensor(image, dtype=torch.float32).permute(2, 0, 1) / 255
        return (tensor - 0.5) / 0.25, int(self._labels[index])


def sweeps(args: argparse.Namespace) -> dict[Kind, tuple[Callable[..., Sweep], list[float]]]:
    """Each kind: its verb on this model and these data, and its 8 values."""
    torch.manual_seed(0)
    model = build_model(f"{CIFAR}:CifarResNet", {"n": 3}).eval()
    data, held_out = Photos(args.images, 1), Photos(args.images, 2)
    how = {"batch_size": args.batch_size, "device": args.device}
    n = args.images
    part = [float(n // 16 + (n // 2 - n // 16) * i // 7) for i in range(8)]
    return {
        "batch-size": (
            lambda values: sweep_batch_size(model, held_out, values=values, **how),
            [2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0],
        ),
        "samples": (
            lambda values: sweep_samples(
                model, data, verify=held_out, values=values, draws=args.draws, **how
            ),
            part,
        ),
        "prior": (
            lambda values: sweep_prior(
                model, data, verify=held_out, values=values, samples=n // 4, **how
            ),
            [0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
        ),
        "example-weight": (
            lambda values: sweep_example_weight(model, held_out, values=values, **how),
            [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5],
        ),
        "momentum": (
            lambda values: sweep_momentum(model, data, verify=held_out, values=values, **how),
            [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 1.0],
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--kinds", nargs="+", default=None)
    parser.add_argument("--images", type=int, default=256, help="of each part of the data")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--draws", type=int, default=2, help="of `samples`")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    known = sweeps(args)
    unknown = [kind for kind in args.kinds or () if kind not in known]
    if unknown:
        sys.exit(f"no such kind: {', '.join(unknown)}; there are {', '.join(known)}")
    print(f"{'kind':<15} {'2 values':>9} {'8 values':>9} {'ratio':>6}   linear: 4")
    for kind, (run, values) in known.items():
        if args.kinds and kind not in args.kinds:
            continue
        two, eight = _timed(run, values, args)
        ratio = statistics.median(b / a for a, b in zip(two, eight, strict=True))
        print(
            f"{kind:<15} {statistics.median(two):>7.2f} s {statistics.median(eight):>7.2f} s "
            f"{ratio:>6.2f}",
            flush=True,
        )


def _timed(
    run: Callable[..., Sweep], values: list[float], args: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """The times with 2 and with 8 values, in turn; a first run of each does not count."""
    clock = CLOCKS[args.clock]
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(args.runs + 1):
        for which, some in enumerate(([values[0], values[-1]], values)):
            start = clock()
            run(some)
            if number:
                times[which].append(clock() - start)
    return times


class _Raw(argparse.RawDescriptionHelpFormatter):
    """The docstring as it stands."""


if __name__ == "__main__":
    main()
