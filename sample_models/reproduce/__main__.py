"""Runs the claims and writes `REPRODUCTION.md`: `make reproduce`, or, in `sample_models`,

python -m reproduce --jobs 2
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import scipy
import torch

import bnaudit
from reproduce.catalogue import CLAIMS
from reproduce.page import LEAST_SEEDS, Circumstances, write_page
from reproduce.runs import run_all, saved

SAMPLES = Path(__file__).resolve().parents[1]
FIGURES = SAMPLES.parent / "bnaudit-results" / "reproduce"


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="reproduce", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--claims", default=",".join(CLAIMS), help="such as a,b,h1")
    parser.add_argument("--seeds", type=int, help="seeds a claim (default: as many as it asks for)")
    parser.add_argument("--first-seed", type=int, default=0, help="100 and above: development")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder for seeds' figures")
    parser.add_argument("--page", type=Path, default=SAMPLES / "REPRODUCTION.md")
    parser.add_argument(
        "--keep", action="store_true", help="go on with the figures that the folder holds"
    )
    return parser.parse_args(given)


def main(asked: argparse.Namespace) -> int:
    """Run, then write the page of the claims that have figures of enough seeds."""
    began = time.monotonic()
    chosen = [CLAIMS[key] for key in asked.claims.split(",")]
    if not asked.keep:
        shutil.rmtree(asked.figures, ignore_errors=True)
    kept = any(asked.figures.glob("*/*.json"))
    done = 0
    for _ in run_all(chosen, asked.seeds, asked.first_seed, asked.jobs, asked.figures):
        done += 1
    runs = [
        (claim, saved(claim, asked.seeds, asked.first_seed, asked.figures))
        for claim in CLAIMS.values()
    ]
    runs = [(claim, of_claim) for claim, of_claim in runs if len(of_claim) >= LEAST_SEEDS]
    about = Circumstances(
        command="make reproduce",
        date=datetime.now(UTC).date().isoformat(),
        processor_seconds=sum(run.seconds for _, of_claim in runs for run in of_claim),
        wall_seconds=None if kept else time.monotonic() - began,
        jobs=asked.jobs,
        versions={
            "bnaudit": bnaudit.__version__,
            "PyTorch": torch.__version__,
            "NumPy": np.__version__,
            "SciPy": scipy.__version__,
            "Python": platform.python_version(),
        },
    )
    write_page(asked.page, runs, about)
    print(f"{done} seeds of claims run; {asked.page.name} has {len(runs)} claims")
    return 0


if __name__ == "__main__":
    sys.exit(main(arguments()))
