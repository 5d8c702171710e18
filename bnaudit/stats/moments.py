"""Moments as a mergeable triple (count, mean, M2) per channel, in float64.

M2 is the sum of squared deviations from the mean. Triples are merged by the pairwise formula of
Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
variances"; E[x²] − E[x]² is never formed, because it loses all its digits where the mean is large
against the standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Moments of one or many parts of a population, per channel.

    Shapes: `count`, the number of elements a channel of each part, is (P,), or (P, C) where the
    channels of several layers stand side by side; `mean` and `m2` are (P, C). All float64 on the
    CPU. A part with count 0 has mean 0 and m2 0.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    @classmethod
    def zeros(cls, parts: int, channels: int) -> Moments:
        """`parts` empty parts."""
        return cls(
            torch.zeros(parts, dtype=torch.float64, device="cpu"),
            torch.zeros(parts, channels, dtype=torch.float64, device="cpu"),
            torch.zeros(parts, channels, dtype=torch.float64, device="cpu"),
        )

    @property
    def var(self) -> Tensor:
        """Biased variance M2 / count, (P, C); 0 where the count is 0."""
        return self.m2 / _column(self.count.clamp(min=1))

    def select(self, index: Tensor) -> Moments:
        """The parts that `index` (a mask or integer tensor) names."""
        return Moments(self.count[index], self.mean[index], self.m2[index])


def merge(a: Moments, b: Moments) -> Moments:
    """Part by part, the moments of the union of two disjoint populations (Chan's formula)."""
    count = a.count + b.count
    weight = _column(b.count / count.clamp(min=1))
    delta = b.mean - a.mean
    # Where one side is empty the weight is 0 or 1 and the other side comes through unchanged.
    mean = torch.where(weight == 1, b.mean, a.mean + delta * weight)
    m2 = a.m2 + b.m2 + delta.square() * _column(a.count) * weight
    return Moments(count, mean, m2)


def pool(moments: Moments) -> Moments:
    """All parts as one population: a single part, shapes (1,) and (1, C)."""
    return scatter(moments, torch.zeros(len(moments.count), dtype=torch.long, device="cpu"), 1)


def scatter(moments: Moments, target: Tensor, parts: int) -> Moments:
    """Pool the parts that share a target: part i goes to `target[i]` in 0..parts−1.

    Two passes (first the pooled means, then deviations from them), so it is as accurate as
    Chan's formula and does not depend on the order of the parts beyond rounding.
    """
    channels = moments.mean.shape[1]
    count = moments.count.new_zeros(parts, *moments.count.shape[1:])
    count.index_add_(0, target, moments.count)
    weight = _column(moments.count / count[target].clamp(min=1))
    mean = torch.zeros(parts, channels, dtype=torch.float64, device="cpu")
    origin = _origin(moments)
    mean.index_add_(0, target, (moments.mean - origin) * weight)
    mean = torch.where(_column(count) > 0, mean + origin, 0.0)
    between = (moments.mean - mean[target]).square() * _column(moments.count)
    m2 = torch.zeros(parts, channels, dtype=torch.float64, device="cpu")
    m2.index_add_(0, target, moments.m2 + between)
    return Moments(count, mean, m2)


def _origin(moments: Moments) -> Tensor:
    """The mean of the largest part, (C,): about 0 a large common offset would cost digits."""
    if len(moments.count) == 0:
        return moments.mean.new_zeros(moments.mean.shape[1])
    if moments.count.dim() == 1:
        return moments.mean[moments.count.argmax()]
    return moments.mean.gather(0, moments.count.argmax(0, keepdim=True)).squeeze(0)


def leave_one_out(moments: Moments) -> Moments:
    """Part j of the result: the moments of all parts but j. At least two parts must be non-empty.

    With δ_j the distance of part j's mean from the pooled mean: mean₋ⱼ = mean − n_j δ_j / (n − n_j)
    and M2₋ⱼ = M2 − M2_j − n_j n / (n − n_j) δ_j² (Chan's formula, solved for one side).
    """
    whole = pool(moments)
    n, n_j = whole.count, moments.count
    rest = (n - n_j).unsqueeze(1)
    delta = moments.mean - whole.mean
    mean = whole.mean - n_j.unsqueeze(1) * delta / rest
    m2 = whole.m2 - moments.m2 - (n_j * n).unsqueeze(1) / rest * delta.square()
    return Moments(n - n_j, mean, m2.clamp(min=0))


def _column(count: Tensor) -> Tensor:
    return count if count.dim() == 2 else count.unsqueeze(1)


class GroupedMoments:
    """A running account of the moments of `groups` disjoint groups, fed part by part."""

    def __init__(self, groups: int, channels: int) -> None:
        self.moments = Moments.zeros(groups, channels)

    @classmethod
    def side_by_side(cls, groups: int, channels: int) -> GroupedMoments:
        """For the channels of several layers, each with a count of its own."""
        account = cls(groups, channels)
        zeros = account.moments
        account.moments = Moments(zeros.mean.clone(), zeros.mean, zeros.m2)
        return account

    def add(self, parts: Moments, group: Tensor) -> None:
        """Merge part i into group `group[i]`; only the groups named are touched."""
        touched, local = group.unique(return_inverse=True)
        if len(touched) < len(group):
            parts = scatter(parts, local, len(touched))
        else:
            parts = parts.select(local.argsort())
        merged = merge(self.moments.select(touched), parts)
        self.moments.count[touched] = merged.count
        self.moments.mean[touched] = merged.mean
        self.moments.m2[touched] = merged.m2
