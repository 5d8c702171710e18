"""Agreement, KL, accuracy and loss of two sets of outputs, against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax as scipy_log_softmax
from scipy.stats import entropy

from bnaudit.stats.outputs import (
    classification_sums,
    label_sums,
    paired_correct_sums,
    squared_difference_sums,
)


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200, 7, generator=generator) * 4
    b = a + torch.randn(200, 7, generator=generator) * 2
    return a, b, torch.randint(0, 7, (200,), generator=generator)


def test_agreement_counts_equal_top_classes(logits) -> None:  # type: ignore[no-untyped-def]
    a, b, _ = logits
    same = (a.numpy().argmax(1) == b.numpy().argmax(1)).sum()
    assert classification_sums(a, b)[0].item() == same
    assert 0 < same < 200


def test_kl_is_that_of_the_softmax_from_the_first_to_the_second(logits) -> None:  # type: ignore[no-untyped-def]
    a, b, _ = logits
    p, q = (np.exp(scipy_log_softmax(x.double().numpy(), axis=1)) for x in (a, b))
    assert classification_sums(a, b)[1].item() == pytest.approx(entropy(p, q, axis=1).sum(), 1e-5)


def test_equal_outputs_agree_and_have_no_divergence(logits) -> None:  # type: ignore[no-untyped-def]
    a = logits[0]
    assert classification_sums(a, a.clone()).tolist() == [200.0, 0.0]


def test_a_class_that_both_exclude_adds_no_divergence() -> None:
    a = torch.tensor([[1.0, 2.0, -float("inf")]])
    b = torch.tensor([[1.0, 2.0, -float("inf")]])
    assert classification_sums(a, b).tolist() == [1.0, 0.0]


def test_loss_is_the_cross_entropy_and_accuracy_the_top_one(logits) -> None:  # type: ignore[no-untyped-def]
    a, _, labels = logits
    log_p = scipy_log_softmax(a.double().numpy(), axis=1)
    losses = -log_p[np.arange(200), labels.numpy()]
    correct, loss, squares = label_sums(a, labels).tolist()
    assert correct == (a.numpy().argmax(1) == labels.numpy()).sum()
    assert loss == pytest.approx(losses.sum(), rel=1e-5)
    assert squares == pytest.approx((losses**2).sum(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_summed_in_float32(logits, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    a, b, labels = (x if i == 2 else x.to(dtype) for i, x in enumerate(logits))
    assert label_sums(a, labels).tolist() == pytest.approx(
        label_sums(a.double(), labels).tolist(), rel=1e-5
    )
    assert classification_sums(a, b).tolist() == pytest.approx(
        classification_sums(a.double(), b.double()).tolist(), rel=1e-5
    )


def test_discordant_pairs_are_those_of_mcnemar(logits) -> None:  # type: ignore[no-untyped-def]
    a, b, labels = logits
    right_a, right_b = (x.numpy().argmax(1) == labels.numpy() for x in (a, b))
    only_a, only_b = paired_correct_sums(a, b, labels).tolist()
    assert only_a == (right_a & ~right_b).sum()
    assert only_b == (right_b & ~right_a).sum()


def test_squared_differences_are_summed_over_all_elements() -> None:
    a, b = torch.randn(2, 3, 4, 5).double()
    found = squared_difference_sums(a.half(), b.half()).tolist()
    x, y = a.half().double().numpy(), b.half().double().numpy()
    assert found == pytest.approx([((x - y) ** 2).sum(), (x**2).sum()], rel=1e-12)


def test_outputs_that_are_not_numbers_never_look_like_agreement_without_divergence() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0]])
    _, kl = classification_sums(a, torch.full((1, 3), float("nan"))).tolist()
    assert kl != 0.0


def test_nan_has_no_top_class_and_so_neither_agrees_nor_is_right() -> None:
    a = torch.tensor([[1.0, float("nan")], [float("nan"), 1.0], [0.0, 1.0]])
    labels = torch.tensor([1, 0, 1])
    assert classification_sums(a, a.clone())[0].item() == 1
    assert label_sums(a, labels)[0].item() == 1
    assert paired_correct_sums(a, a.nan_to_num(9.0), labels).tolist() == [0, 2]
