"""The fingerprint tells whether two Audits saw the same samples, in the same order and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from alone import measure_alone, recalibrate_alone
from tiny_models import classifier, images
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.engine.ranks import ALONE
from bnaudit.findings.comparability import same_samples
from bnaudit.stats.scattered import VALUES, places_in
from bnaudit.verbs.fingerprint import Fingerprint

X, Y = images(96)
Batches = list[tuple[Tensor, Tensor]]


def batches(x: Tensor = X, y: Tensor = Y, size: int = 16) -> Batches:
    return list(zip(x.split(size), y.split(size), strict=True))


def changed(x: Tensor, *at: int) -> Tensor:
    x = x.clone()
    x[at] += 1
    return x


def permuted(*parts: Iterable[int]) -> Batches:
    order = [i for part in parts for i in part]
    return batches(X[order], Y[order])


OTHERS: dict[str, Callable[[], Batches]] = {
    "two batches swapped": lambda: permuted(range(16), range(32, 48), range(16, 32), range(48, 96)),
    "two samples swapped": lambda: permuted(range(90), [91, 90], range(92, 96)),
    "the last sample of another content": lambda: batches(torch.cat([X[:95], X[:1]]), Y),
    "other labels": lambda: batches(X, changed(Y, 95)),
    "one more sample": lambda: batches(torch.cat([X, X[:1]]), torch.cat([Y, Y[:1]])),
    "other batches": lambda: batches(size=12),
    "images mirrored": lambda: [
        (x.flip(3) if i == 4 else x, y) for i, (x, y) in enumerate(batches())
    ],
    "another dtype": lambda: batches(X.bfloat16().float()),
}


def audit_of(data: Any, **options: Any) -> bnaudit.Audit:
    return measure_alone(classifier(), data, **options)


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_or_another_order_in_a_stream_are_told(name: str) -> None:
    assert not same_samples(audit_of(batches()), audit_of(OTHERS[name]()))


def test_the_same_stream_is_the_same_whatever_the_model_and_the_memory_format() -> None:
    first = audit_of(batches())
    loader = DataLoader(TensorDataset(X, Y), batch_size=16)
    assert same_samples(first, audit_of(loader))
    assert same_samples(first, measure_alone(classifier(seed=1), batches()))
    last = X.contiguous(memory_format=torch.channels_last)
    assert same_samples(first, audit_of(batches(last)))


@pytest.mark.parametrize("x", [X.flip(0), changed(X, 50, slice(None)), X.flip(3)])
def test_other_contents_of_a_data_set_are_told(x: Tensor) -> None:
    assert not same_samples(audit_of(TensorDataset(X, Y)), audit_of(TensorDataset(x, Y)))


def test_a_data_set_is_the_same_in_batches_of_any_size() -> None:
    data = TensorDataset(X, Y)
    first = audit_of(data, batch_size=16)
    for size in (1, 7, 96):
        assert same_samples(first, audit_of(data, batch_size=size))
    assert not same_samples(first, audit_of(data, seed=1))


def test_it_is_that_of_the_last_pass() -> None:
    data = TensorDataset(X, Y)
    once, twice = (recalibrate_alone(classifier(), data, method=m) for m in ("ema", "sequential"))
    measured = audit_of(data).data
    assert measured is not None
    found = {made.report.data.fingerprint for made in (once, twice)}
    assert found == {measured.fingerprint}


def of(*tensors: Any, samples: int = 4) -> str:
    fingerprint = Fingerprint()
    fingerprint.add(tensors, range(samples))
    return fingerprint.hexdigest(ALONE)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.bool, torch.uint8, torch.uint16, torch.int64, torch.float16, torch.bfloat16),
        *(torch.float8_e4m3fn, torch.float64, torch.complex64, torch.complex128),
    ],
)
def test_tensors_of_any_dtype_count(dtype: torch.dtype) -> None:
    zeros, ones = torch.zeros(4, 300), torch.ones(4, 300)
    assert of(zeros.to(dtype)) != of(ones.to(dtype))
    assert of(zeros.to(dtype)) == of(zeros.to(dtype))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_of_any_form_can_be_looked_at() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    odd = [torch.tensor(1.0), torch.zeros(4, 0), torch.zeros(4, 3).to_sparse(), nested]
    assert of(*odd) == of(*odd)
    assert of(torch.tensor(1.0)) != of(torch.tensor(2.0))
    assert of(torch.zeros(5)) != of(torch.ones(5))
    assert of([torch.zeros(3, 9, 9)] * 4) != of([torch.zeros(3, 9, 9)] * 3)


def test_every_sample_counts_and_values_from_all_over_it() -> None:
    x = torch.zeros(3, 3, 224, 224)
    seen = torch.zeros(3, 224, 224)
    seen[places_in((3, 224, 224))] = 1
    assert seen.sum() == VALUES
    assert (seen.sum((1, 2)) >= VALUES // 4).all()
    assert (seen.sum(0) > 0).any(1).sum() > VALUES // 2  # rows
    assert (seen.sum(0) > 0).any(0).sum() > VALUES // 8  # columns
    for sample in range(3):
        other = x.clone()
        other[sample] = 1
        assert of(x, samples=3) != of(other, samples=3)
