"""Ranks with nothing to read, layers that only some of them reach, and ranks that differ."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
import scipy.stats  # noqa: F401 - before the ranks are forked, not in each
import torch
from alone import NO_TRIALS, measure_alone, recalibrate_alone
from job import on_ranks
from nets import Remembering, Routing, assert_same, classifier, images, of_unknown_kind
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

import bnaudit
from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import find_layers
from bnaudit.engine.ranks import Ranks, joined
from bnaudit.errors import InputError, ModelError, RankError
from bnaudit.results import Audit, ModelInfo, Recalibrated
from bnaudit.targets.samples import Readable
from bnaudit.verbs import measurement
from bnaudit.verbs.bars import no_bar
from bnaudit.verbs.calibration import Choice
from bnaudit.verbs.in_step import in_step
from bnaudit.verbs.measurement import measure_with
from bnaudit.verbs.recalibration import Limits, recalibrate_with
from bnaudit.verbs.samples import MapReader
from bnaudit.verbs.sources import Source

DATA, HELD_OUT = images(301), images(420)

Buffers = dict[str, Tensor]


def own_and(model: nn.Module) -> Buffers:
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def assert_equal(one: Buffers, other: Buffers) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert torch.equal(values, other[name]), name


# ---- layers of unknown kind


def test_layers_that_have_to_be_probed_are_known_on_ranks_without_a_batch() -> None:
    def work(rank: int) -> Audit:
        return bnaudit.measure(of_unknown_kind(), Subset(DATA, range(39)), batch_size=20)

    (one,), several = on_ranks(1, work), on_ranks(4, work)
    assert [layer.status for layer in one.layers] == ["audited", "audited"]
    assert [layer.eps_source for layer in one.layers] == ["module", "probed"]
    for audit in several:
        assert_same(one, audit)


def by_first_label(model: nn.Module, batch: Any) -> Any:
    return model(*batch)


def test_a_layer_that_only_other_ranks_reach_is_measured_as_by_one() -> None:
    def work(rank: int) -> Audit:
        return bnaudit.measure(
            Routing().eval(), Subset(DATA, range(100)), batch_size=20, forward=by_first_label
        )

    (one,), several = on_ranks(1, work), on_ranks(3, work)
    assert [layer.status for layer in one.layers] == ["audited"] * 3
    assert 0 < one.layers[1].calls < one.layers[0].calls
    for audit in several:
        assert_same(one, audit, ("run_time", "note"))
        assert_same(several[0], audit)
        assert [layer.note for layer in audit.layers] == [layer.note for layer in one.layers]
        assert audit.attribution is not None  # it names two batches, which are not the same ones
        assert "exact needs all batches to take one way" in (audit.attribution.note or "")


@pytest.mark.parametrize("method", ["sequential", "precise"])
def test_a_layer_that_only_other_ranks_reach_is_recalibrated_as_by_one(
    method: Literal["sequential", "precise"],
) -> None:
    def work(rank: int) -> tuple[Recalibrated, Buffers]:
        model = Routing().eval()
        made = recalibrate_alone(
            model,
            Subset(DATA, range(100)),
            verify=Subset(HELD_OUT, range(301, 361)),
            method=method,
            batch_size=20,
            forward=by_first_label,
            force=True,
        )
        return made.report, own_and(model)

    ((report, wanted),), several = on_ranks(1, work), on_ranks(3, work)
    assert any(layer.changed for layer in report.layers)
    for there, buffers in several:
        assert_same(report, there, ("memory", "run_time"))
        assert_equal(buffers, several[0][1])
        for name, values in wanted.items():
            torch.testing.assert_close(buffers[name], values, rtol=1e-6, atol=1e-7)


# ---- a first rank with nothing to read


def test_a_stream_may_be_empty_on_the_first_rank() -> None:
    x, y = DATA.tensors
    batches = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 120, 20)]

    def work(rank: int) -> tuple[Audit, Recalibrated]:
        own = [] if rank == 0 and torch.distributed.is_initialized() else batches
        audit = measure_alone(classifier(), own)
        made = recalibrate_alone(classifier(), own, batch_size=20)
        return audit, made.report

    ((audit, report),), several = on_ranks(1, work), on_ranks(2, work)
    assert audit.data is not None
    assert audit.data.samples == 120
    for there, made in several:
        assert_same(audit, there, ("run_time", "fingerprint"))
        assert_same(report, made, ("memory", "run_time", "fingerprint"))


class Damaged(Dataset[Any]):
    """Whole batches of the reading order cannot be read."""

    def __init__(self, samples: int, batches: tuple[int, ...], size: int) -> None:
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(0)).tolist()
        self._bad = {n for b in batches for n in order[b * size : (b + 1) * size]}
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self._bad:
            raise OSError("truncated file")
        return DATA[index]


def measured(data: Any, ranks: Ranks) -> Audit:
    model = classifier()
    conditions = Conditions(default_forward, torch.device("cpu"), ranks=ranks)
    with in_step(Subject(model, find_layers(model), conditions)):
        return measure_with(
            model,
            MapReader(data, 20, None, 0, skip_bad=True, ranks=ranks),
            conditions,
            model_info=ModelInfo("model", 0, {}),
            data_source="data",
            attribute="none",
            policy=NO_TRIALS,
            progress=no_bar,
        )


def recalibrated(data: Any, ranks: Ranks) -> Recalibrated:
    return recalibrate_with(
        classifier(),
        Source(MapReader(data, 20, None, 0, skip_bad=True, ranks=ranks), "data"),
        None,
        Conditions(default_forward, torch.device("cpu"), ranks=ranks),
        Choice(),
        Limits(policy=NO_TRIALS),
        model_info=ModelInfo("model", 0, {}),
        task="auto",
        progress=no_bar,
        say=lambda line: None,
    ).report


@pytest.mark.parametrize("bad", [(0,), (0, 2, 4, 6)])
def test_a_first_batch_of_unreadable_samples_alone_is_left_out(bad: tuple[int, ...]) -> None:
    data = Readable(Damaged(140, bad, 20))

    def work(rank: int) -> tuple[Audit, Recalibrated]:
        with joined() as together:
            return measured(data, together), recalibrated(data, together)

    ((audit, report),), several = on_ranks(1, work), on_ranks(2, work)
    assert audit.data is not None
    assert audit.data.samples == 140 - 20 * len(bad)
    assert len(audit.data.skipped) == 20 * len(bad)
    for there, made in several:
        assert_same(audit, there)
        assert_same(report, made, ("memory", "run_time"))


def test_samples_of_which_none_can_be_read_are_told_on_every_rank() -> None:
    data = Readable(Damaged(140, tuple(range(7)), 20))

    def work(verb: Callable[[Any, Ranks], Any]) -> Callable[[int], Any]:
        def on_rank(rank: int) -> Any:
            with joined() as together:
                return verb(data, together)

        return on_rank

    for verb in (measured, recalibrated):
        errors = on_ranks(2, work(verb))
        assert len({str(error) for error in errors}) == 1
        assert "the data gave no batch" in str(errors[0])


# ---- ranks that differ


class Tiring(nn.Module):
    """It cannot be run more often than so many times."""

    def __init__(self, forwards: int) -> None:
        super().__init__()
        self.inner, self._left = classifier(), forwards

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 4)."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("tired")
        return self.inner(x)


def test_what_one_rank_could_not_do_is_noted_alike_on_all() -> None:
    def work(tired: int) -> Callable[[int], Audit]:
        def on_rank(rank: int) -> Audit:  # a rank has three batches, and each is run twice
            model = Tiring(6 if rank == tired else 1000).eval()
            return bnaudit.measure(model, Subset(DATA, range(120)), batch_size=20)

        return on_rank

    for tired, where in ((0, ""), (1, "rank 1: ")):
        first, other = on_ranks(2, work(tired))
        assert_same(first, other)
        assert first.attribution is not None
        assert (first.attribution.note or "").startswith(
            f"own and inherited shift are not known: {where}the model cannot take batch"
        )


def test_data_that_the_first_rank_could_not_check_are_noted_alike_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def give_up(*parts: Any) -> None:
        raise ModelError("it is tired")

    monkeypatch.setattr(measurement, "check_data", give_up)
    for audit in on_ranks(2, lambda rank: measure_alone(classifier(), DATA, batch_size=20)):
        assert audit.notes == ("the data were not checked: it is tired",)


def test_a_state_dict_may_hold_more_than_tensors() -> None:
    def work(rank: int) -> Audit:
        return measure_alone(Remembering().eval(), Subset(DATA, range(60)), batch_size=20)

    (one,), several = on_ranks(1, work), on_ranks(2, work)
    for audit in several:
        assert_same(one, audit)


def test_revert_gives_each_rank_its_own_statistics_and_apply_all_the_same_again() -> None:
    def work(rank: int) -> tuple[Buffers, Buffers, Buffers, Buffers]:
        model = classifier()
        for name in ("1.running_mean", "4.running_var"):
            model.get_buffer(name).add_(0.1 * rank)
        before = own_and(model)
        made = recalibrate_alone(model, Subset(DATA, range(90)), layers="4", batch_size=16)
        assert made.applied
        applied = own_and(model)
        made.revert()
        assert not made.applied
        reverted = own_and(model)
        made.apply()
        return before, applied, reverted, own_and(model)

    ranks = on_ranks(2, work)
    assert not torch.equal(ranks[0][0]["1.running_mean"], ranks[1][0]["1.running_mean"])
    for before, applied, reverted, again in ranks:
        assert_equal(before, reverted)
        assert_equal(applied, ranks[0][1])
        assert_equal(again, applied)
        assert not torch.equal(applied["4.running_mean"], before["4.running_mean"])


def test_a_device_that_one_rank_does_not_have_ends_all_of_them_soon() -> None:
    def work(verb: Callable[..., Any]) -> Callable[[int], Any]:
        def on_rank(rank: int) -> Any:
            return verb(classifier(), DATA, device="cuda:7" if rank == 1 else "cpu")

        return on_rank

    for verb in (bnaudit.measure, bnaudit.recalibrate):
        start = time.monotonic()
        for error in on_ranks(3, work(verb), seconds=30):
            assert type(error) is InputError
            assert "device cuda:7: PyTorch sees " in str(error)
        assert time.monotonic() - start < 20


def test_a_rank_waits_for_the_others_as_long_as_it_is_told() -> None:
    def work(verb: Callable[..., Any]) -> Callable[[int], Any]:
        def on_rank(rank: int) -> Any:
            if rank == 1:
                time.sleep(6)
                return None
            start = time.monotonic()
            with pytest.raises(RankError) as caught:
                verb(classifier(), DATA, rank_timeout=3)
            return str(caught.value), time.monotonic() - start

        return on_rank

    for verb in (bnaudit.measure, bnaudit.recalibrate):
        (said, seconds), _ = on_ranks(2, work(verb))
        assert "rank 1 did not come within 3 seconds: every rank has to make this call" in said
        assert 'ranks="alone"' in said
        assert 3 <= seconds < 15
