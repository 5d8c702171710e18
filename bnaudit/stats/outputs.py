"""Network discrepancy: a model's outputs under two sets of statistics, on the same samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def classification_sums(a: Tensor, b: Tensor) -> Tensor:
    """Sums over the samples of a batch, (2,): [same top-1 class, KL(softmax a ‖ softmax b)].

    `a`, `b`: logits (N, K). KL is in nats.
    """
    agree, kl = same_top_one(a, b).sum(), per_sample_kl(a, b).sum()
    return torch.stack([agree.to(kl.dtype), kl])


def per_sample_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(softmax a ‖ softmax b) of each sample in nats, (N,). `a`, `b`: logits (N, K)."""
    log_a, log_b = log_softmax(a), log_softmax(b)
    p = log_a.exp()
    # A class of probability 0 adds nothing, 0·(−∞); NaN outputs stay NaN.
    return torch.where(p == 0, 0.0, p * (log_a - log_b)).sum(1)


def label_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over the samples of a batch, (3,): [top-1 correct, cross-entropy in nats, its square].

    `logits` (N, K), `labels` (N,) in 0..K−1. In float64 where the device has it: the spread of the
    loss comes from the last two.
    """
    loss = per_sample_loss(logits, labels)
    loss = loss if loss.device.type == "mps" else loss.double()
    right = top_one_right(logits, labels).sum().to(loss.dtype)
    return torch.stack([right, loss.sum(), loss.square().sum()])


def top_one_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the top-1 class of each sample is its label, (N,). NaN has none: not right."""
    best = logits.max(1)
    return (best.indices == labels) & ~best.values.isnan()


def same_top_one(a: Tensor, b: Tensor) -> Tensor:
    """Whether two sets of logits (N, K) have the same top-1 class, (N,). NaN has none: not so."""
    best_a, best_b = a.max(1), b.max(1)
    return (best_a.indices == best_b.indices) & ~(best_a.values.isnan() | best_b.values.isnan())


def paired_correct_sums(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    """[only a correct, only b correct], (2,): the discordant pairs of McNemar's test."""
    right_a, right_b = top_one_right(a, labels), top_one_right(b, labels)
    return torch.stack([(right_a & ~right_b).sum(), (~right_a & right_b).sum()])


def squared_difference_sums(a: Tensor, b: Tensor) -> Tensor:
    """[Σ(a − b)², Σa²] over all elements, (2,): the parts of a relative RMS difference."""
    wide = torch.float64 if a.device.type != "mps" else torch.float32
    x, y = a.to(wide), b.to(wide)
    return torch.stack([(x - y).square().sum(), x.square().sum()])


def per_sample_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample in nats, (N,)."""
    return functional.nll_loss(log_softmax(logits), labels, reduction="none")


def per_sample_entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax of each sample in nats, (N,): how undecided the network is."""
    log_p = log_softmax(logits)
    p = log_p.exp()
    return -torch.where(p == 0, 0.0, p * log_p).sum(1)


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities in at least float32."""
    wide = logits.dtype if logits.dtype == torch.float64 else torch.float32
    return functional.log_softmax(logits, dim=1, dtype=wide)
