"""What more values cost: reads do not grow, forwards grow by what a value needs and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sweep_inputs import pixels, sample_model
from torch import Tensor, nn
from torch.utils.data import Dataset

import bnaudit
from bnaudit.results.sweep import Sweep

BATCHES = 2
"""Of 32 samples each, in the calibration data and in the held-out data."""


class Counted(Dataset[tuple[Tensor, Tensor]]):
    """Digits, and how often one was read."""

    def __init__(self, split: str) -> None:
        self._x, self._y = pixels(split, 32 * BATCHES)
        self.reads = 0

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += 1
        return self._x[index], self._y[index]


@dataclass(frozen=True)
class Cost:
    reads: int
    forwards: int


Run = Callable[[nn.Module, Counted, Counted, list[float]], Sweep]

KINDS: dict[str, tuple[Run, list[float], int]] = {
    # the sweep, its 8 values, and how many forwards of the held-out batches a value costs
    "batch-size": (
        lambda model, data, held_out, values: bnaudit.sweep_batch_size(
            model, held_out, values=values
        ),
        [2, 3, 4, 6, 8, 12, 16, 32],
        1,
    ),
    "example-weight": (
        lambda model, data, held_out, values: bnaudit.sweep_example_weight(
            model, held_out, values=values
        ),
        [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        1,
    ),
    "momentum": (
        lambda model, data, held_out, values: bnaudit.sweep_momentum(
            model, data, verify=held_out, values=values
        ),
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        1,
    ),
    "prior": (
        lambda model, data, held_out, values: bnaudit.sweep_prior(
            model, data, verify=held_out, values=values
        ),
        [1, 2, 4, 8, 16, 32, 64, 128],
        2,  # and a recalibration, on as many batches
    ),
    "samples": (
        lambda model, data, held_out, values: bnaudit.sweep_samples(
            model, data, verify=held_out, values=values, draws=1
        ),
        [33, 36, 40, 44, 48, 52, 56, 60],
        2,
    ),
}


def cost(run: Run, values: list[float]) -> Cost:
    model, data, held_out = sample_model("small_batch"), Counted("train"), Counted("test")
    forwards = []
    model.register_forward_pre_hook(lambda module, args: forwards.append(len(args[0])))
    run(model, data, held_out, values)
    return Cost(data.reads + held_out.reads, len(forwards))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] * (kind not in ("batch-size", "samples")))
        for kind in KINDS
    ],
)
def test_more_values_cost_forwards_and_no_reads(kind: str) -> None:
    run, values, each = KINDS[kind]
    two, eight = cost(run, [values[0], values[-1]]), cost(run, values)
    assert eight.reads == two.reads
    assert eight.forwards - two.forwards == 6 * each * BATCHES
    assert eight.forwards < 4 * two.forwards
