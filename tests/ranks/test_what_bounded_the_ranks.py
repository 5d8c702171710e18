"""What bounded a run of several ranks: one that is slow is told apart from those that wait."""

from __future__ import annotations

import time
from typing import Any

import pytest
from alone import measure_alone, recalibrate_alone
from job import on_ranks
from nets import classifier, images
from torch.utils.data import Dataset, Subset

from bnaudit.report.bound import bound, slowest_rank
from bnaudit.results import RunTime

SLEEP, SAMPLES = 0.03, 160
DATA = images(200)


class SlowOn(Dataset[Any]):
    """Images that rank `rank` waits for."""

    def __init__(self, rank: int, here: int) -> None:
        self.sleep = SLEEP if rank == here else 0.0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.sleep)
        return DATA[index]


def measured(rank: int) -> Any:
    return measure_alone(classifier(), SlowOn(1, rank), batch_size=20).run_time


def recalibrated(rank: int) -> Any:
    verify = Subset(DATA, range(SAMPLES, len(DATA)))
    found = recalibrate_alone(classifier(), SlowOn(1, rank), verify=verify, batch_size=20)
    return found.report.run_time


@pytest.mark.parametrize("verb", [measured, recalibrated])
def test_the_rank_with_the_slow_loader_is_named_and_the_other_one_waits(verb: Any) -> None:
    run, same = on_ranks(2, verb)
    assert isinstance(run, RunTime)
    assert run == same
    assert slowest_rank(run) == 1
    fast, slow = run.ranks
    slept = SLEEP * SAMPLES / 2
    assert slow.data > slept
    assert fast.waiting > slept / 2
    assert slow.waiting < fast.waiting / 2
    assert bound(run, "cpu", "float32").startswith("bounded by data on rank 1: data ")
    assert run.seconds.shares.whole == pytest.approx(1)


def test_ranks_measure_no_more_samples_than_one_would() -> None:
    one = measured(0)
    run, _ = on_ranks(2, measured)
    assert run.samples == one.samples == SAMPLES
    assert one.ranks[0].collectives == one.ranks[0].waiting == 0
