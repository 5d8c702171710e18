"""What ends one rank ends all of them, soon and with one reason; what it does not is mended."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import scipy.stats  # noqa: F401 - here and below: before the ranks are forked, not in each
import torch
import torch.distributed as dist
from greenlet import getcurrent
from job import on_ranks
from torch import Tensor, nn
from torch.distributed import distributed_c10d
from torch.utils.data import TensorDataset

import bnaudit
import bnaudit.verbs.measure
import bnaudit.verbs.recalibrate
from bnaudit.config import Settings
from bnaudit.engine import message_board
from bnaudit.engine.conditions import ForwardError, OutOfMemoryError
from bnaudit.engine.lockstep import OutOfOrderError
from bnaudit.engine.ranks import joined
from bnaudit.errors import InputError, ModelError, RankError
from bnaudit.findings.catalogue import all_rules
from bnaudit.findings.policy import Policy
from bnaudit.verbs.bars import no_bar
from bnaudit.verbs.recalibrate_file import recalibrate_file

all_rules()

BRIEF = Policy(ignore=("BN301",))
SOON = 60.0
"""Seconds within which every job has ended, however it went."""


def data(samples: int = 64) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, 8, 8, generator=generator)
    return TensorDataset(x, torch.arange(samples) % 4)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    first = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()]
    second = [nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(4, 4)).eval()


class Watched(nn.Module):
    """A network that does something before its n-th forward."""

    def __init__(self, at: int, what: Callable[[], Any]) -> None:
        super().__init__()
        self.inner, self.left, self.what = network(), at, what

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            self.what()
        return self.inner(x)


def raising(error: BaseException) -> Callable[[], None]:
    def what() -> None:
        raise error

    return what


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def measure(model: nn.Module, dataset: Any = None, **given: Any) -> bnaudit.Audit:
    options = {"attribute": "none", "policy": BRIEF, "batch_size": 8, **given}
    return bnaudit.measure(model, data() if dataset is None else dataset, **options)


def recalibrate(model: nn.Module, dataset: Any = None, **given: Any) -> Any:
    options = {"policy": BRIEF, "batch_size": 8, **given}
    return bnaudit.recalibrate(model, data() if dataset is None else dataset, **options)


def nothing() -> None:
    pass


def leftover() -> list[str]:
    """Threads that are still there, a moment later."""
    end = time.monotonic() + 5
    while len(threading.enumerate()) > 1 and time.monotonic() < end:
        time.sleep(0.05)
    return [t.name for t in threading.enumerate() if t is not threading.main_thread()]


def ended(size: int, work: Callable[[int], Any], within: float = SOON) -> list[Any]:
    """What the ranks answered: all of them in time."""
    start = time.monotonic()
    answers = on_ranks(size, work, seconds=SOON)
    assert time.monotonic() - start < within
    return answers


def test_what_one_rank_raises_all_raise_and_name_it_and_the_next_call_works() -> None:
    cases: list[tuple[BaseException, type[BaseException], str]] = [
        (ValueError("no"), ForwardError, "ValueError: no"),
        (MemoryError("x"), OutOfMemoryError, "out of memory on cpu with batches of 8"),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError, "smaller --batch-size"),
        (InputError("bad.png is no image"), InputError, "bad.png is no image"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ]

    def work(rank: int) -> Any:
        found: list[BaseException] = []
        for error, _, _ in cases:
            try:
                measure(Watched(3, raising(error) if rank == 1 else nothing))
            except BaseException as raised:
                found.append(raised)
        after = measure(network()), recalibrate(network(), verify_split=0.5)
        assert after[0].data is not None
        whole = torch.ones(1)
        dist.all_reduce(whole)
        return found, after[0].data.samples, int(whole), leftover()

    answers = ended(3, work)
    for rank, answer in enumerate(answers):
        found, samples, together, threads = answer
        assert (samples, together, threads) == (64, 3, []), rank
        for error, (_, kind, text) in zip(found, cases, strict=True):
            assert type(error) is kind
            assert text in str(error)
            named = str(error).startswith("rank 1: ")
            assert named == (rank != 1 and kind is not KeyboardInterrupt)


def test_a_bug_on_one_rank_is_raised_there_and_named_on_the_others() -> None:
    class Broken(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            raise KeyError("nope")

    def work(rank: int) -> Any:
        x, y = data().tensors
        measure(network(), Broken(x, y) if rank == 0 else data())

    own, other = ended(2, work)
    assert isinstance(own, KeyError)
    assert isinstance(other, RankError)
    assert "rank 0 failed: KeyError: 'nope'" in str(other)


class Interrupting(nn.Module):
    """Does something when a layer has been called so many times: in the middle of lockstep."""

    def __init__(self, at: int, what: Callable[[], Any]) -> None:
        super().__init__()
        self.inner, self.left, self.what = network(), at, what
        self.inner[4].register_forward_hook(self.count)

    def count(self, *called: Any) -> None:
        self.left -= getcurrent().parent is not None
        if self.left == 0:
            self.what()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_the_others_name_a_rank_that_is_killed() -> None:
    def in_a_pass(rank: int) -> Any:
        measure(Watched(3, send(signal.SIGKILL) if rank == 1 else nothing))

    def in_lockstep(rank: int) -> Any:
        recalibrate(Interrupting(2, send(signal.SIGKILL) if rank == 1 else nothing))

    for work in (in_a_pass, in_lockstep):
        first, killed, last = ended(3, work, within=20 + message_board.GRACE)
        assert killed == -signal.SIGKILL
        for error in (first, last):
            assert isinstance(error, RankError)
            assert str(error).startswith("rank 1 no longer answers: killed")
            assert error.gone == (1,)


def test_a_rank_that_is_killed_while_the_first_one_works_alone_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = bnaudit.verbs.measurement.check_data

    def slow(*given: Any) -> Any:
        time.sleep(3)
        return check(*given)

    monkeypatch.setattr("bnaudit.verbs.measurement.check_data", slow)

    def work(rank: int) -> Any:
        if rank == 1:
            leaving = threading.Timer(2.5, send(signal.SIGKILL))
            leaving.daemon = True
            leaving.start()
        measure(network())
        time.sleep(30)  # where the machine was fast

    first, killed, last = ended(3, work)
    assert killed == -signal.SIGKILL
    assert isinstance(first, RankError)
    assert isinstance(last, RankError)


def test_the_end_of_the_first_rank_and_with_it_of_the_store_ends_the_others() -> None:
    def work(rank: int) -> Any:
        measure(Watched(3, send(signal.SIGKILL) if rank == 0 else nothing))

    killed, *others = ended(3, work, within=20)
    assert killed == -signal.SIGKILL
    for error in others:
        assert isinstance(error, RankError)
        assert "is rank 0, or the launcher, gone?" in str(error)


@pytest.mark.slow  # a slow machine takes a slow rank for one that hangs
@pytest.mark.parametrize("hung", [0, 1])
def test_a_rank_that_hangs_is_named_once_the_others_have_waited_long_enough(
    hung: int, tmp_path: Path
) -> None:
    def work(rank: int) -> Any:
        try:
            measure(Watched(3, send(signal.SIGSTOP) if rank == hung else nothing), rank_timeout=4)
        except RankError as error:
            start = time.monotonic()
            dist.destroy_process_group()
            took = time.monotonic() - start
            (tmp_path / f"{rank}").write_text(f"{error}")
            (tmp_path / f"{rank}.took").write_text(f"{took}")
        os._exit(0)

    start = time.monotonic()
    with pytest.raises(TimeoutError):  # the rank that hangs gives no answer
        on_ranks(3, work, seconds=15)
    assert time.monotonic() - start < SOON
    for rank in {0, 1, 2} - {hung}:
        said = (tmp_path / f"{rank}").read_text()
        if hung == 0:
            assert "the store that the ranks share no longer answers" in said
        else:
            assert said.startswith("rank 1 kept the others waiting for more than 4 seconds")
        assert float((tmp_path / f"{rank}.took").read_text()) < 5


def test_a_call_on_one_rank_only_says_that_all_have_to_make_it_or_one_alone() -> None:
    def work(rank: int) -> Any:
        if rank == 0:
            alone = measure(network(), ranks="alone")
            assert alone.data is not None
            assert alone.data.samples == 64
            measure(network(), rank_timeout=2)
        time.sleep(5)

    error, other = ended(2, work)
    assert other is None
    assert isinstance(error, RankError)
    assert "rank 1 did not come within 2 seconds: every rank has to make this call" in str(error)
    assert 'ranks="alone"' in str(error)


def test_batches_that_take_another_way_on_one_rank_are_told_on_all() -> None:
    class TwoWays(nn.Module):
        def __init__(self, other_way: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.other_way = nn.BatchNorm2d(3), nn.BatchNorm2d(3), other_way
            self.head = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(self.a(x)) if self.other_way else self.a(self.b(x))
            return self.head(x.mean((2, 3)))

    def work(rank: int) -> Any:
        recalibrate(TwoWays(rank == 1).eval())

    for error in ended(2, work):
        assert type(error) is OutOfOrderError
        assert "the batches of rank 0 call layer b where the batches of rank 1 call" in str(error)


def test_a_model_that_one_rank_cannot_run_in_lockstep_goes_layer_by_layer_on_all() -> None:
    class NotTogether(nn.Module):
        def __init__(self, together: bool) -> None:
            super().__init__()
            self.inner, self.together = network(), together

        def forward(self, x: Tensor) -> Tensor:
            if getcurrent().parent is not None and not self.together:
                raise ValueError("not in lockstep")
            return self.inner(x)

    def work(rank: int) -> Any:
        made = recalibrate(NotTogether(rank != 1))
        return made.report.method, made.report.notes

    first, *others = ended(3, work)
    assert first[0] == "sequential"
    assert "(ValueError: not in lockstep)" in first[1][0]
    assert [other == first for other in others] == [True, True]


def test_other_weights_on_a_rank_are_refused_by_the_name_of_the_tensor() -> None:
    for error in ended(3, lambda rank: measure(network(seed=rank == 2))):
        assert type(error) is ModelError
        assert re.search(r"ranks \d and \d do not have the same model: 0.weight", str(error))


def test_running_statistics_of_each_rank_are_left_alone_and_those_of_the_first_count() -> None:
    def work(rank: int, ranks: Any = "all") -> Any:
        model = network()
        with torch.no_grad():
            model[1].running_mean.normal_(generator=torch.Generator().manual_seed(rank))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        audit = measure(model, ranks=ranks)
        after = model.state_dict()
        same = all(torch.equal(before[name], after[name]) for name in before)
        return audit.layers[0].total_shift, same

    alone = work(0, ranks="alone")[0]
    for shift, same in ended(3, work):
        assert same
        assert shift.value == pytest.approx(alone.value, rel=1e-6)


def test_streams_have_to_be_each_ranks_own_part() -> None:
    x, y = data().tensors
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 64, 8)]
    for error in ended(2, lambda rank: measure(network(), batches)):
        assert type(error) is InputError
        assert "ranks 0 and 1 begin with the same batch; give each rank its own" in str(error)
    for audit in ended(2, lambda rank: measure(network(), batches[rank::2])):
        assert audit.data.samples == 64


def test_ranks_without_a_batch_take_part_in_both_verbs() -> None:
    def work(rank: int) -> Any:
        audit = measure(network(), data(20), attribute="all")
        made = recalibrate(network(), data(40), verify_split=0.3)
        assert audit.data is not None
        return audit.data.samples, made.report.verification.data.samples

    assert ended(4, work) == [(20, 12)] * 4


def test_ema_is_refused_on_several_ranks_with_what_to_do() -> None:
    for error in ended(2, lambda rank: recalibrate(network(), method="ema")):
        assert type(error) is InputError
        assert "--method ema goes through the batches one after another" in str(error)


def test_groups_and_timeouts_of_the_users_own_stay_as_they_are() -> None:
    def work(rank: int) -> Any:
        own = dist.new_group([0, 1], backend="gloo", timeout=timedelta(seconds=7))
        distributed_c10d._get_default_store().set_timeout(timedelta(seconds=9))
        measure(network())
        value = torch.tensor([float(rank)])
        if rank < 2:
            dist.all_reduce(value, group=own)
        groups = len(distributed_c10d._world.pg_map)
        timeout = distributed_c10d._get_default_store().timeout
        return float(value), groups, timeout, leftover()

    nine = timedelta(seconds=9)
    assert ended(3, work) == [(1.0, 2, nine, []), (1.0, 2, nine, []), (2.0, 1, nine, [])]


NET = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def model():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(216, 4))

def data(seed=1):
    return TensorDataset(torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))
"""


def test_a_first_rank_that_is_killed_while_it_writes_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(NET)
    names: dict[str, Any] = {}
    exec(NET, names)  # ours
    torch.save(names["model"]().state_dict(), tmp_path / "a.pt")
    target = tmp_path / "b.pt"
    target.write_bytes(b"as before")
    settings = Settings(
        checkpoint=tmp_path / "a.pt",
        model=f"{tmp_path}/net.py:model",
        data=f"{tmp_path}/net.py:data",
        verify=f"{tmp_path}/net.py:data",
        verify_arg={"seed": 2},
        batch_size=16,
        device="cpu",
        workers=0,
    )
    monkeypatch.setattr(
        "bnaudit.checkpoints.publish.flush_file", lambda path: send(signal.SIGKILL)()
    )

    def work(rank: int) -> Any:
        with joined() as ranks:
            recalibrate_file(
                settings,
                target,
                dry_run=False,
                force=True,
                overwrite=True,
                progress=no_bar,
                say=lambda line: None,
                ranks=ranks,
            )

    killed, error = ended(2, work)
    assert killed == -signal.SIGKILL
    assert isinstance(error, RankError)
    assert target.read_bytes() == b"as before"
