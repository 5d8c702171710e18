"""The benchmark of ranks runs, and what it prints adds up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_the_benchmark_compares_two_ranks_with_one_and_with_two_that_work_alone() -> None:
    more_than_there_are = len(os.sched_getaffinity(0)) + 1
    options = {
        "--ranks": f"1,2,{more_than_there_are}",
        "--images": "32",
        "--image-size": "32",
        "--batch-size": "8",
        "--repeats": "1",
        "--jobs": "recalibrate, exact",
    }
    run = subprocess.run(
        [sys.executable, "benchmarks/ranks.py", *(x for one in options.items() for x in one)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert f"left out: {more_than_there_are} ranks" in run.stdout
    one, two = (line.split() for line in run.stdout.splitlines()[-2:])
    assert [one[0], one[1], two[0], two[1]] == ["1", "rank", "2", "ranks"]
    assert one[3:6] == ["1.00", "1.00", "100%"]
    assert one[-2:] == ["0.0%", "0.0%"]
    against_one, at_best, of_best = float(two[3]), float(two[4]), float(two[5].rstrip("%")) / 100
    assert against_one / at_best == pytest.approx(of_best, abs=0.05)
    assert 0 < float(two[-2].rstrip("%")) < 100
