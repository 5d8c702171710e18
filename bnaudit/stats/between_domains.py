"""How far apart the statistics of one layer are between two populations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bnaudit.stats.jackknife import Jackknife, jackknife
from bnaudit.stats.moments import Moments, leave_one_out, pool
from bnaudit.stats.shift import gamma_weighted_mean

Statistics = tuple[Tensor, Tensor]


def squared_distance(first: Statistics, second: Statistics, eps: float) -> Tensor:
    """The squared distance of two populations in each channel, (…, C).

        δ² = ((m₁ − m₂)² + (√v₁ − √v₂)²) / ((v₁ + v₂)/2 + ε)

    The squared 2-Wasserstein distance of the two Gaussians in units of their mean variance: what
    `stats.shift.squared_shift` is, made symmetric. It stays bounded where one side has next to no
    variance (the scale part below 2). `first`, `second`: mean and biased variance, (…, C) float64.
    """
    (m1, v1), (m2, v2) = first, second
    gap = (m1 - m2).square() + (v1.clamp(min=0).sqrt() - v2.clamp(min=0).sqrt()).square()
    scale = (v1 + v2) / 2 + eps
    return torch.where(gap == 0, 0.0, gap / scale)


def distance(first: Moments, second: Moments, eps: float, gamma: Tensor) -> Jackknife | None:
    """The squared distance of a layer between two populations, with its jackknife.

    Σγ²δ²/Σγ² over channels. `first`, `second`: what the layer saw of each, by jackknife group,
    none empty. The populations count as independent: bias and variance of the two one-sample
    jackknives add. Where both hold the same samples in two forms that is too much if the two are
    positively correlated, and too little if they are negatively. The interval takes the statistics
    upstream as given. None where a side has too few groups, or γ = 0 in every channel.
    """
    one, other = pool(first), pool(second)
    sides = (one.mean[0], one.var[0]), (other.mean[0], other.var[0])
    plain = float(gamma_weighted_mean(squared_distance(*sides, eps), gamma))
    if not math.isfinite(plain):
        return None
    known = [
        _one_sided(groups, fixed, eps, gamma, plain)
        for groups, fixed in ((first, sides[1]), (second, sides[0]))
    ]
    if known[0] is None or known[1] is None:
        return None
    return Jackknife(
        plain,
        known[0].bias + known[1].bias,
        math.hypot(known[0].standard_error, known[1].standard_error),
        min(known[0].groups, known[1].groups),
    )


def plain_distance(first: Moments, second: Moments, eps: float, gamma: Tensor) -> float:
    """The squared distance as computed; NaN where γ = 0 in every channel."""
    one, other = pool(first), pool(second)
    sides = (one.mean[0], one.var[0]), (other.mean[0], other.var[0])
    return float(gamma_weighted_mean(squared_distance(*sides, eps), gamma))


def _one_sided(
    groups: Moments, fixed: Statistics, eps: float, gamma: Tensor, plain: float
) -> Jackknife | None:
    if len(groups.count) < 2:
        return None
    rest = leave_one_out(groups)
    left_out = gamma_weighted_mean(squared_distance((rest.mean, rest.var), fixed, eps), gamma)
    return jackknife(plain, left_out, groups.count)
