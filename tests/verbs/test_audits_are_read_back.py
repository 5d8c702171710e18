"""Whatever is legal to measure gives an Audit that can be read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from alone import measure_alone
from tiny_models import classifier, images
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results import Audit

X, Y = images(40)
DATA = TensorDataset(X, Y)


class Repeating(Sampler[list[int]]):
    """Batches of which each comes three times."""

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(3):
            yield from BatchSampler(range(40), 8, drop_last=False)


class Endless(Sampler[int]):
    """Without a length."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from range(40)


class OfBatches(Dataset[Any]):
    """A data set whose items are batches already."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[8 * index :][:8], Y[8 * index :][:8]


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return 3  # and lies

    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)


def loader(data: Dataset[Any] = DATA, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, **({"batch_size": 8} | options))


LOADERS = {
    "with replacement": lambda: loader(sampler=RandomSampler(DATA, True, 600)),
    "weighted": lambda: loader(sampler=WeightedRandomSampler([1.0] * 40, 90)),
    "a part": lambda: loader(sampler=SubsetRandomSampler(range(24))),
    "batches that repeat": lambda: DataLoader(DATA, batch_sampler=Repeating()),
    "batches of an own order": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, drop_last=True)
    ),
    "batches as items": lambda: DataLoader(OfBatches(), batch_size=None),
    "a stream that lies": lambda: loader(Stream()),
    "one short batch": lambda: loader(TensorDataset(X[:3], Y[:3])),
    "one sample a batch": lambda: loader(batch_size=1),
    "a list": lambda: [(X, Y)],
    "no labels": lambda: [X, X],
    "an empty batch": lambda: [(X[:0], Y[:0]), (X, Y)],
    "labels that come and go": lambda: [(X, Y), (X, X)],
    "a data set": lambda: DATA,
}


def read_back(audit: Audit) -> Audit:
    read = Audit.from_json(audit.to_json())
    assert read == replace(audit, channels=None)
    return read


@pytest.mark.parametrize("name", LOADERS)
def test_of_any_loader(name: str) -> None:
    audit = read_back(measure_alone(classifier(), LOADERS[name](), batch_size=8))
    assert audit.data is not None
    assert audit.data.available is None or audit.data.samples <= audit.data.available


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 2**63 - 1},
        {"samples": 1},
        {"samples": 10**9},
        {"batch_size": 1},
        {"batch_size": 10**6},
        {"train_batch_size": 2, "batch_size": 7},
        {"attribute": "all"},
        {"attribute": 1},
        {"task": "other"},
        {"task": "classification"},
        {"dtype": "bf16"},
        {"compare": lambda a, b: {"": float("nan"), "mean": -1e30}},
        {"compare": lambda a, b: float("inf")},
        {"train_data": DATA},
        {"channels_last": True},
    ],
    ids=lambda options: "-".join(options) or "none",  # the values have addresses in their texts
)
def test_with_any_option(options: dict[str, Any]) -> None:
    read_back(bnaudit.measure(classifier(), DATA, **options))


def test_samples_without_end_are_counted_as_far_as_they_are_read() -> None:
    audit = measure_alone(classifier(), loader(sampler=Endless()), samples=100)
    assert audit.data is not None
    assert (audit.data.samples, audit.data.available) == (100, None)
    read_back(audit)


def test_what_a_sampler_draws_is_what_there_is() -> None:
    found = {}
    for name in ("with replacement", "a part", "batches that repeat"):
        data = measure_alone(classifier(), LOADERS[name]()).data
        assert data is not None
        found[name] = (data.samples, data.available)
    assert found == {
        "with replacement": (600, 600),
        "a part": (24, 24),
        "batches that repeat": (120, None),
    }


@pytest.mark.parametrize("scale", [0.0, pytest.param(1e-30, marks=pytest.mark.slow), 1e15])
@pytest.mark.parametrize("damage", ["none", "var", "frozen", "nan head", "never called"])
def test_of_models_that_are_hardly_any(damage: str, scale: float) -> None:
    model = classifier()
    if damage == "var":
        model[1].running_var[0] = 0.0
    elif damage == "frozen":
        model[1].requires_grad_(False).eval()
    elif damage == "nan head":
        nn.init.constant_(model[10].weight, float("nan"))
    elif damage == "never called":
        model.spare = nn.BatchNorm1d(3)
        model.forward = lambda x: model[:11](x)
    read_back(bnaudit.measure(model, TensorDataset(X * scale, Y), batch_size=8))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_document_holds_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed is {seed}: give a number from 0"):
        bnaudit.measure(classifier(), DATA, seed=seed)
    with pytest.raises(InputError, match=f"seed is {seed}"):
        bnaudit.recalibrate(classifier(), DATA, seed=seed)
