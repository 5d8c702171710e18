"""What `bnaudit inspect` costs against loading the same file with torch.

    python benchmarks/inspect_checkpoint.py                       # a ResNet-50, random weights
    python benchmarks/inspect_checkpoint.py --checkpoint ckpt.pt  # any file
    python benchmarks/inspect_checkpoint.py --gigabytes 10        # and a large one: its peak memory

Whole processes are timed, the start of the interpreter included, in turn, five times over:
`python -c pass`, `python -c "import torch; torch.load(...)"` and `bnaudit inspect`. Printed are
medians, ranges, the ratio to torch run by run, and what each process took of memory at its peak.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LOAD = "import sys, torch; torch.load(sys.argv[1], map_location='cpu', mmap=sys.argv[2] == 'mmap')"
MAKE = """
import sys, torch, torchvision
state = torchvision.models.resnet50(weights=None).state_dict()
if len(sys.argv) == 2:
    torch.save(state, sys.argv[1])
else:
    state["huge"] = torch.empty(int(float(sys.argv[2]) * 1e9 / 4))
    with torch.serialization.skip_data():
        torch.save(state, sys.argv[1])
"""
INSPECT = "import sys; from bnaudit.cli.main import run; sys.argv[0] = 'bnaudit'; run()"


@dataclass(frozen=True)
class Cost:
    """Of a process: seconds, and megabytes of its own at its peak."""

    seconds: float
    megabytes: float


def main() -> None:
    """Parse, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="default: a ResNet-50 state dict")
    parser.add_argument("--gigabytes", type=float, help="of one more tensor, in a file of holes")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.checkpoint or Path(folder) / "resnet50.pt"
        # Made in a process of its own: what this one has in memory counts in its children's peaks.
        if not args.checkpoint:
            run([sys.executable, "-c", MAKE, str(path)])
        compare(path, args.repeats)
        if args.gigabytes:
            large = Path(folder) / "large.pt"
            run([sys.executable, "-c", MAKE, str(large), str(args.gigabytes)])
            compare(large, 1)


def compare(path: Path, repeats: int) -> None:
    """Time the contenders in turn, and print."""
    contenders = {
        "python -c pass": ("pass",),
        "torch.load": (LOAD, str(path), "read"),
        "torch.load, mmap": (LOAD, str(path), "mmap"),
        "bnaudit inspect": (INSPECT, "inspect", str(path)),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, (code, *rest) in contenders.items():
            costs[name].append(run([sys.executable, "-c", code, *rest]))
    print(f"{path.name}, {path.stat().st_size / 1e6:,.0f} MB; median of {repeats} runs in turn\n")
    print(f"{'':<18}{'seconds':>9}{'range':>16}{'/ torch.load':>14}{'peak memory':>13}")
    torch_load = costs["torch.load"][1:]
    for name, all_costs in costs.items():
        kept = all_costs[1:]  # the first warms the cache of files
        seconds = [cost.seconds for cost in kept]
        ratio = statistics.median(
            own.seconds / theirs.seconds for own, theirs in zip(kept, torch_load, strict=True)
        )
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        peak = max(cost.megabytes for cost in kept)
        print(
            f"{name:<18}{statistics.median(seconds):>9.2f}{spread:>16}{ratio:>14.2f}"
            f"{peak:>10,.0f} MB"
        )
    print()


def run(command: list[str]) -> Cost:
    """Run a process without its output; what it costs."""
    start = time.perf_counter()
    null = os.open(os.devnull, os.O_WRONLY)
    quiet = [(os.POSIX_SPAWN_DUP2, null, 1)]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    os.close(null)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return Cost(seconds, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
