"""What it costs `bnaudit init` to find out which model a checkpoint belongs to.

    python benchmarks/find_architecture.py                     # a spread of torchvision and timm
    python benchmarks/find_architecture.py timm:hrnet_w18      # models of one's own choice

The shapes of each model, with 10 classes and a prefix, are looked for among all of torchvision and
timm in a process of its own. Printed are seconds on the clock and of the processor, the import of
the libraries included, and what was found.
"""

from __future__ import annotations

import subprocess
import sys
import time

SPREAD = (
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_large",
    "torchvision:fasterrcnn_resnet50_fpn",
    "timm:resnet26d",
    "timm:tf_efficientnet_b0",
    "timm:repvgg_a0",
    "nothing",
)

FIND = """
import sys
from bnaudit.targets.outlines import outline_of
from bnaudit.verbs.architectures import find_architectures

spec = sys.argv[1]
found = {"0.weight": (5, 3, 3, 3), "1.running_mean": (5,), "1.running_var": (5,)}
if spec != "nothing":
    shapes = outline_of(spec, {"num_classes": 10})
    found = {f"module.{name}": shape for name, shape in shapes.items()}
exact = find_architectures(found).exact
names = [one.spec for one in exact]
print(", ".join(names[:3]) or "none fits", "…" if names[3:] else "", end="")
"""


def main() -> None:
    print(f"{'model':<38}{'seconds':>9}{'of CPU':>9}  found")
    for spec in sys.argv[1:] or SPREAD:
        start = time.perf_counter()
        before = _children()
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FIND, spec], check=True, capture_output=True
        )
        seconds = time.perf_counter() - start
        print(f"{spec:<38}{seconds:>9.1f}{_children() - before:>9.1f}  {ran.stdout.decode()}")


def _children() -> float:
    """Seconds of the processor that ended children used."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
