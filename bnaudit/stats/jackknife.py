"""The delete-a-group jackknife: bias, standard error and interval of a figure of pooled moments.

Groups of unequal size are weighted as in Busing, Meijer & van der Leeden (1999), "Delete-m
jackknife for unequal m"; with equal groups this is the ordinary jackknife.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bnaudit.stats.quantiles import student_quantile

MIN_GROUPS = 8
"""Below this number of groups an interval would be too rough to print."""


@dataclass(frozen=True)
class Jackknife:
    """What leaving out one group at a time tells about a figure θ.

    `plain`: θ from all groups; `bias`: its estimated bias b; `debiased`: θ − b; `standard_error`
    of the debiased figure; `groups`: their number k (Student's t with k − 1 degrees of freedom).
    """

    plain: float
    bias: float
    standard_error: float
    groups: int

    @property
    def debiased(self) -> float:
        """θ − b."""
        return self.plain - self.bias

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided interval of the debiased figure at `level`, from Student's t."""
        half = student_quantile(0.5 + level / 2, self.groups - 1) * self.standard_error
        return self.debiased - half, self.debiased + half


def jackknife(plain: float, left_out: Tensor, counts: Tensor) -> Jackknife | None:
    """The jackknife of θ = `plain`, given θ with each group left out.

    `left_out` (k,): θ₋ⱼ; `counts` (k,): the size m_j of group j. With h_j = n/m_j:

        θ_J = kθ − Σ (1 − m_j/n) θ₋ⱼ,   pseudo-values θ̃_j = h_j θ − (h_j − 1) θ₋ⱼ,
        variance = 1/k · Σ (θ̃_j − θ_J)² / (h_j − 1)

    and the bias is θ − θ_J, which for equal groups is (k − 1)(mean θ₋ⱼ − θ). None where fewer
    than `MIN_GROUPS` groups hold anything or θ is not finite: no interval is better than a wrong
    one.
    """
    used = counts > 0
    left_out, counts = left_out[used], counts[used].double()
    k = int(used.sum())
    if k < MIN_GROUPS or not math.isfinite(plain) or not bool(left_out.isfinite().all()):
        return None
    h = counts.sum() / counts
    theta_j = k * plain - float(((1 - 1 / h) * left_out).sum())
    pseudo = h * plain - (h - 1) * left_out
    variance = float(((pseudo - theta_j).square() / (h - 1)).sum()) / k
    return Jackknife(plain, plain - theta_j, math.sqrt(variance), k)


def group_count(samples: int) -> int:
    """k = clamp(n/20, 8, 64), and never more groups than samples."""
    return min(samples, max(8, min(64, samples // 20)))


def deal(samples: int, groups: int) -> Tensor:
    """The group of each sample in reading order, (n,): consecutive runs, sizes differ by ≤ 1."""
    return torch.arange(samples, device="cpu") * groups // max(samples, 1)
