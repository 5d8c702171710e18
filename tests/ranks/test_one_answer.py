"""The Audit and the recalibrated model do not depend on the number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats
import torch
from alone import measure_alone, recalibrate_alone
from job import on_ranks
from nets import assert_same, classifier, images, regressor, reusing
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Subset

import bnaudit
from bnaudit.results import Audit, Recalibrated

DATA, HELD_OUT = images(301), images(420)
Array = np.ndarray[Any, np.dtype[np.float64]]
Method = Literal["exact", "sequential", "precise"]


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


def inputs_of_layers(rank: int) -> dict[str, list[Array]]:
    """What each layer of the deployed network gets on a rank: of each batch, (N, C, H·W)."""
    model, seen = classifier(), dict[str, list[Array]]()

    def note(name: str, x: Tensor) -> None:
        seen.setdefault(name, []).append(x.double().flatten(2).numpy())

    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
    with torch.no_grad():
        for x, _ in DataLoader(Part(rank), batch_size=20):
            model(x)
    return seen


def squared_shift(values: Array, layer: nn.BatchNorm2d) -> float:
    """The mean over channels of d², from all values (M, C) that a layer gets."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    eps, mean = layer.eps, layer.running_mean.double().numpy()
    scale = np.sqrt(layer.running_var.double().numpy() + eps)
    m, v = values.mean(0), values.var(0)
    d = ((m - mean) / scale) ** 2 + (np.sqrt(v) / scale - np.sqrt(v / (v + eps))) ** 2
    return float(d.mean())


def interval(parts: list[list[Array]], layer: nn.BatchNorm2d) -> tuple[float, float]:
    """The 95% interval of a layer's shift from the batches (N, C, L) of each rank.

    Samples are dealt in pairs to 64 groups, on each rank from the first; these become 15 in turn.
    """
    groups: list[list[Array]] = [[] for _ in range(15)]
    for batches in parts:
        dealt = 0
        for batch in batches:
            for run in range(0, len(batch), 2):
                groups[dealt % 64 % 15].append(batch[run : run + 2])
                dealt += 1
    sizes = np.array([sum(len(run) for run in runs) for runs in groups])
    rows = [np.concatenate(runs).swapaxes(1, 2).reshape(-1, runs[0].shape[1]) for runs in groups]
    theta = squared_shift(np.concatenate(rows), layer)
    without = [squared_shift(np.concatenate(rows[:j] + rows[j + 1 :]), layer) for j in range(15)]
    h = sizes.sum() / sizes
    debiased = 15 * theta - float(((1 - 1 / h) * without).sum())
    pseudo = h * theta - (h - 1) * without
    error = np.sqrt(np.mean((pseudo - debiased) ** 2 / (h - 1)))
    half = float(scipy.stats.t.ppf(0.975, 14) * error)
    return max(0.0, debiased - half) ** 0.5, (debiased + half) ** 0.5


def test_streams_are_each_ranks_own_part_of_whatever_length(on_one: Audit) -> None:
    def work(rank: int) -> Audit:
        return measure_alone(classifier(), DataLoader(Part(rank), batch_size=20))

    parts = [inputs_of_layers(rank) for rank in range(2)]
    audits = on_ranks(2, work)
    for layer in audits[0].audited:
        module = classifier().get_submodule(layer.name)
        assert isinstance(module, nn.BatchNorm2d)
        low, high = interval([part[layer.name] for part in parts], module)
        alone = interval([parts[0][layer.name] + parts[1][layer.name]], module)
        assert high - low != pytest.approx(alone[1] - alone[0], rel=1e-3)  # it can be told apart
        for audit in audits:
            shift = next(one for one in audit.audited if one.name == layer.name).total_shift
            assert (shift.low, shift.high) == pytest.approx((low, high), rel=1e-6)
            assert shift.groups == 15
    for audit in audits:
        assert audit.data.samples == 301
        for one, there in zip(on_one.audited, audit.audited, strict=True):
            assert there.total_shift.plain == pytest.approx(one.total_shift.plain, rel=1e-9)


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
