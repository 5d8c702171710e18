"""Where the time of `measure` and `recalibrate` goes: the loader, the model, the moments."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import torch
from alone import measure_alone, recalibrate_alone
from rich.console import Console
from tiny_models import classifier, images
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import bnaudit
from bnaudit.engine import collect, minibatch, population
from bnaudit.engine.stopwatch import HostClock, Stopwatch
from bnaudit.report.bound import bound
from bnaudit.report.recalibration import print_recalibrated
from bnaudit.report.terminal import print_audit
from bnaudit.results import Method, RunTime, Spent

SAMPLES, BATCH = 64, 16


@dataclass
class Hand:
    """A clock that nothing but the parts under test moves: every second is known."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    on_hand = classmethod(lambda cls, device: cls(HostClock(hand), hand))
    monkeypatch.setattr(Stopwatch, "on", on_hand)
    return hand


class Loaded(Dataset[tuple[Tensor, Tensor]]):
    """Every sample is waited for; `sleep(1)` each."""

    def __init__(self, samples: int, sleep: Callable[[float], None], seed: int = 1) -> None:
        self.images, self.labels = images(samples, seed)
        self.sleep = sleep

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.sleep(1)
        return self.images[index], self.labels[index]


class Thinking(nn.Module):
    """Calls `sleep(1)` before, between and behind the layers of a classifier."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(classifier().children())
        self.sleep = sleep

    def forward(self, x: Tensor) -> Tensor:
        self.sleep(1)
        for layer in self.layers:
            x = layer(x)
            self.sleep(1)
        return x


@dataclass
class Moving:
    """Moves the hand by so much a second; `taken` is all that it did."""

    hand: Hand
    rate: float
    taken: float = 0.0

    def __call__(self, seconds: float) -> None:
        self.hand.now += self.rate * seconds
        self.taken += self.rate * seconds


def slow_moments(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]) -> None:
    """Every reduction of a layer's input calls `sleep(1)`."""
    for module in (collect, minibatch, population):
        plain = module.run_moments

        def run_moments(*args: Any, plain: Callable[..., Any] = plain) -> Any:
            sleep(1)
            return plain(*args)

        monkeypatch.setattr(module, "run_moments", run_moments)


def time_of(found: Any) -> RunTime:
    run = found.run_time if isinstance(found, bnaudit.Audit) else found.report.run_time
    assert isinstance(run, RunTime)
    return run


def measured(model: nn.Module, data: Any) -> RunTime:
    return time_of(bnaudit.measure(model, data, batch_size=BATCH))


def recalibrated(method: Method) -> Callable[[nn.Module, Any], RunTime]:
    def run(model: nn.Module, data: Any) -> RunTime:
        verify = TensorDataset(*images(SAMPLES, seed=2))
        return time_of(
            bnaudit.recalibrate(model, data, verify=verify, method=method, batch_size=BATCH)
        )

    return run


VERBS = {"measure": measured} | {method: recalibrated(method) for method in get_args(Method)}


@pytest.mark.parametrize("verb", VERBS)
def test_each_second_is_put_down_to_what_took_it(
    verb: str, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of three sizes, so that none can pass for another."""
    loading, thinking, reducing = (Moving(hand, rate) for rate in (1.0, 2.0**-10, 2.0**-20))
    slow_moments(monkeypatch, reducing)
    run = VERBS[verb](Thinking(thinking), Loaded(SAMPLES, loading))
    assert min(loading.taken, thinking.taken, reducing.taken) > 0
    assert run.ranks == (Spent(data=loading.taken, forward=thinking.taken, moments=reducing.taken),)
    assert run.wall_seconds == hand.now


def test_of_a_data_set_that_is_read_once_every_sample_is_waited_for_once(hand: Hand) -> None:
    run = measured(classifier(), Loaded(SAMPLES, Moving(hand, 1.0)))
    assert run.ranks[0].data == run.wall_seconds == run.samples == SAMPLES
    assert run.samples_per_second == 1


def test_a_loader_of_the_callers_own_is_data_too(hand: Hand) -> None:
    loader = DataLoader(Loaded(SAMPLES, Moving(hand, 1.0)), batch_size=BATCH)
    assert measured(classifier(), loader).ranks[0].data == SAMPLES


def test_the_samples_of_all_data_count(hand: Hand) -> None:
    data, others = (TensorDataset(*images(n)) for n in (SAMPLES, 48))
    audit = bnaudit.measure(classifier(), data, train_data=others, batch_size=BATCH)
    assert time_of(audit).samples == SAMPLES + 48
    found = bnaudit.recalibrate(classifier(), data, verify=TensorDataset(*images(48, seed=2)))
    assert time_of(found).samples == SAMPLES + 48


@pytest.mark.parametrize(("slow", "said"), [("data", "data"), ("model", "forward")])
def test_what_is_made_slow_on_purpose_is_what_bounds_the_run(slow: str, said: str) -> None:
    """By the real clock, from the call to the line on the screen and the document."""

    def sleep(what: str, seconds: float) -> None:
        time.sleep(seconds if slow == what else 0)

    data = Loaded(SAMPLES, lambda _: sleep("data", 0.04))
    model = Thinking(lambda _: sleep("model", 0.02))
    audit = measure_alone(model, data, batch_size=BATCH)
    found = recalibrate_alone(model, data, verify_split=0.5, batch_size=BATCH)

    file = io.StringIO()
    console = Console(file=file, width=200, highlight=False, color_system=None)
    print_audit(audit, console)
    print_recalibrated(found.report, console)
    assert file.getvalue().count(f"bounded by {said}: ") == 2
    for run, text in (
        (audit.run_time, audit.to_json()),
        (found.report.run_time, found.report.to_json()),
    ):
        assert run is not None
        assert run.ranks[0].shares.whole == pytest.approx(1)
        document = json.loads(text)["run_time"]
        assert sum(document["seconds"].values()) == pytest.approx(document["wall_seconds"])


def test_the_shares_agree_with_timers_around_the_model_and_the_moments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many channels and hardly anything computed between: whatever it is, it is measured twice."""
    inside = 0.0
    plain = collect.run_moments

    def run_moments(*args: Any) -> Any:
        nonlocal inside
        began = time.perf_counter()
        found = plain(*args)
        inside += time.perf_counter() - began
        return found

    for module in (collect, minibatch):
        monkeypatch.setattr(module, "run_moments", run_moments)
    model = nn.Sequential(*(nn.BatchNorm1d(4096) for _ in range(6)))
    forward = 0.0

    def run(model: nn.Module, batch: Any) -> Any:
        nonlocal forward
        began = time.perf_counter()
        found = model(batch[0])
        forward += time.perf_counter() - began
        return found

    data = TensorDataset(torch.randn(512, 4096))
    audit = measure_alone(model, data, batch_size=64, forward=run, task="other")
    spent = time_of(audit).ranks[0]
    assert spent.moments > inside  # merging comes on top
    assert spent.forward == pytest.approx(forward - inside, rel=0.3)
    assert bound(time_of(audit), "cpu", "float32").startswith(f"bounded by {spent.largest}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("slow", "said"), [("data", "data"), ("model", "forward")])
def test_on_a_gpu_what_is_slow_is_what_bounds_the_run(slow: str, said: str) -> None:
    """The model is slow on the device: products of matrices that the host runs ahead of."""

    class Heavy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier()
            self.register_buffer("matrix", torch.randn(4096, 4096) / 64)

        def forward(self, x: Tensor) -> Tensor:
            product = self.matrix
            for _ in range(400 if slow == "model" else 0):
                product = product @ self.matrix
            return self.inner(x + 0 * product.mean())

    def slowly(seconds: float) -> None:
        time.sleep(seconds * 0.02 if slow == "data" else 0)

    audit = bnaudit.measure(
        Heavy(), Loaded(SAMPLES, slowly), batch_size=BATCH, device="cuda", attribute="none"
    )
    run = time_of(audit)
    assert run.clock == "device"
    assert run.ranks[0].largest == said
    assert run.ranks[0].whole == pytest.approx(run.wall_seconds)
