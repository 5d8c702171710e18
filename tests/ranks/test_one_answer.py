"""The Audit and the recalibrated model do not depend on the number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from alone import measure_alone, recalibrate_alone
from job import on_ranks
from nets import classifier, figures, images, regressor, reusing
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Subset

import bnaudit
from bnaudit.results import Audit, Recalibrated

DATA, HELD_OUT = images(301), images(420)
ROUNDING = 1e-9

Method = Literal["exact", "sequential", "precise"]


def assert_same(one: Any, other: Any, without: tuple[str, ...] = ("run_time",)) -> None:
    a, b = figures(one, without), figures(other, without)
    assert a.keys() == b.keys()
    assert len(a) > 100
    for path, value in a.items():
        if isinstance(value, float):
            assert b[path] == pytest.approx(value, rel=1e-6, abs=ROUNDING), path
        else:
            assert b[path] == value, path


def measured(rank: int) -> Audit:
    return bnaudit.measure(classifier(), DATA, batch_size=20)


@pytest.fixture(scope="module")
def on_one() -> Audit:
    return on_ranks(1, measured)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("ranks", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_every_figure_of_an_audit_is_that_of_one_rank(ranks: int, on_one: Audit) -> None:
    audits = on_ranks(ranks, measured)
    for audit in audits:
        assert_same(on_one, audit)


def test_ranks_without_a_batch_change_nothing() -> None:
    def work(rank: int) -> Audit:
        return bnaudit.measure(classifier(), Subset(DATA, range(39)), batch_size=20)

    (one,), several = on_ranks(1, work), on_ranks(4, work)
    assert one.data.samples == 39
    for audit in several:
        assert_same(one, audit)


def recalibrated(model: Callable[[], nn.Module], method: Method, **options: Any) -> Any:
    def work(rank: int) -> tuple[Recalibrated, dict[str, Tensor]]:
        torch.manual_seed(rank)
        net = model()
        made = recalibrate_alone(
            net,
            Subset(DATA, range(210)),
            verify=Subset(HELD_OUT, range(210, 420)),
            method=method,
            batch_size=16,
            force=True,
            **options,
        )
        return made.report, net.state_dict()

    return work


@pytest.mark.parametrize(
    ("model", "method", "options"),
    [
        (classifier, "exact", {"prior": 30.0}),
        (classifier, "sequential", {}),
        (classifier, "precise", {"above": 0.05}),
        (reusing, "exact", {}),
        (regressor, "exact", {}),
    ],
)
def test_recalibration_gives_what_one_rank_gives_and_the_same_buffers_on_all(
    model: Callable[[], nn.Module], method: Method, options: dict[str, Any]
) -> None:
    work = recalibrated(model, method, **options)
    ((report, wanted),), several = on_ranks(1, work), on_ranks(3, work)
    changed = {name for name, tensor in model().state_dict().items() if name in wanted}
    assert any(not torch.equal(model().state_dict()[n], wanted[n]) for n in changed)
    for there, buffers in several:
        assert_same(report, there, ("memory", "run_time"))
        for name, values in wanted.items():
            assert torch.equal(buffers[name], several[0][1][name])
            torch.testing.assert_close(buffers[name], values, rtol=1e-6, atol=1e-7)


def test_a_loader_that_deals_to_the_ranks_is_read_without_its_padding(on_one: Audit) -> None:
    def work(rank: int) -> Audit:
        sampler = DistributedSampler(DATA, shuffle=True)
        assert 3 * len(sampler) > len(DATA)  # two samples come twice
        return bnaudit.measure(classifier(), DataLoader(DATA, 20, sampler=sampler))

    for audit in on_ranks(3, work):
        assert audit.data.samples == len(DATA)
        assert_same(on_one, audit, ("run_time", "source"))


class Part(IterableDataset[Any]):
    """The samples of one rank."""

    def __init__(self, rank: int) -> None:
        self._numbers = range(0, 100) if rank == 0 else range(100, 301)

    def __iter__(self) -> Any:
        return (DATA[number] for number in self._numbers)


def test_streams_are_each_ranks_own_part_of_whatever_length(on_one: Audit) -> None:
    def work(rank: int) -> Audit:
        return measure_alone(classifier(), DataLoader(Part(rank), batch_size=20))

    for audit in on_ranks(2, work):
        assert audit.data.samples == 301
        for one, there in zip(on_one.audited, audit.audited, strict=True):
            assert there.total_shift.plain == pytest.approx(one.total_shift.plain, rel=1e-9)
            assert there.total_shift.low == pytest.approx(one.total_shift.low, rel=0.5)


def test_running_statistics_that_training_left_apart_are_the_first_ranks_for_a_while(
    on_one: Audit,
) -> None:
    def work(rank: int) -> tuple[Audit, bool]:
        model = classifier()
        model[1].running_mean += rank
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        audit = bnaudit.measure(model, DATA, batch_size=20)
        after = model.state_dict()
        return audit, all(torch.equal(before[name], after[name]) for name in before)

    for audit, as_before in on_ranks(2, work):
        assert as_before
        assert_same(on_one, audit)


def test_recalibration_levels_the_layers_that_it_leaves_alone() -> None:
    def work(rank: int) -> dict[str, Tensor]:
        model = classifier()
        model[1].running_mean += rank
        made = recalibrate_alone(model, Subset(DATA, range(90)), layers="4", batch_size=16)
        assert made.applied
        return model.state_dict()

    first, other = on_ranks(2, work)
    assert torch.equal(first["1.running_mean"], classifier().state_dict()["1.running_mean"])
    assert not torch.equal(first["4.running_mean"], classifier().state_dict()["4.running_mean"])
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_one_rank_may_measure_on_its_own(on_one: Audit) -> None:
    def work(rank: int) -> Audit | None:
        if rank == 0:
            return bnaudit.measure(classifier(), DATA, batch_size=20, ranks="alone")
        return None

    audit, nothing = on_ranks(2, work)
    assert nothing is None
    assert_same(on_one, audit)


def test_moving_averages_need_one_process() -> None:
    def work(rank: int) -> str:
        with pytest.raises(bnaudit.errors.InputError, match="one after another") as caught:
            bnaudit.recalibrate(classifier(), DATA, method="ema")
        return str(caught.value)

    assert len(set(on_ranks(2, work))) == 1
