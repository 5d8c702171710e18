"""Estimation shift: how wrong a layer's normalised activation is at inference.

Huang et al. 2022 (arXiv:2203.10778) measure the estimation shift of a layer by the unnormalised
distances ‖m̂ − m‖₂ and ‖√v̂ − √v‖₂ between estimated and expected statistics. The magnitude here
is the *normalised* form, comparable between layers: the root mean squared error of the normalised
activation, in standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SquaredShift:
    """d² split into its two parts, each (…, C): `mean_part` + `scale_part` = d².

    Both are NaN in an undefined channel: v̂ + ε ≤ 0, or an estimate that is not finite.
    """

    mean_part: Tensor
    scale_part: Tensor

    @property
    def total(self) -> Tensor:
        """d², (…, C)."""
        return self.mean_part + self.scale_part


def squared_shift(
    mean: Tensor, var: Tensor, estimated_mean: Tensor, estimated_var: Tensor, eps: float | Tensor
) -> SquaredShift:
    """The squared estimation shift d² of each channel.

    With s = √(v + ε) and ŝ = √(v̂ + ε) the normalised activation is (x − m̂)/ŝ where it should be
    (x − m)/s. Its mean squared error over the population is exactly

        d² = ((m − m̂)/ŝ)² + (√v/ŝ − √v/s)²

    for any distribution of x: only its first two moments enter. For ε → 0 this is the squared
    2-Wasserstein distance of the two Gaussians divided by v̂.

    `mean` and biased `var` are the expected statistics, (…, C); the estimated ones are (C,), and so
    is `eps` where it differs between channels. All float64.
    """
    scale = torch.where(estimated_var + eps > 0, estimated_var + eps, torch.nan).sqrt()
    # √v/s → 1 as v → ∞ and is 0 at v = 0, also where ε = 0.
    normalised_std = torch.where(var > 0, (var / (var + eps).clamp(min=1e-300)).sqrt(), 0.0)
    mean_part = ((mean - estimated_mean) / scale).square()
    scale_part = (var.sqrt() / scale - normalised_std).square()
    defined = (estimated_mean + scale).isfinite()
    return SquaredShift(
        torch.where(defined, mean_part, torch.nan), torch.where(defined, scale_part, torch.nan)
    )


def inherited_shift(
    deployed: tuple[Tensor, Tensor],
    corrected: tuple[Tensor, Tensor],
    estimated_var: Tensor,
    eps: float,
) -> float:
    """What the layers upstream add to a layer's shift: how far they move its input.

        √(mean over channels of ((m_dep − m_cor)/ŝ)² + ((√v_dep − √v_cor)/ŝ)²)

    `deployed`, `corrected`: (mean, biased variance) of the input, (C,) each, with everything
    upstream normalising by its estimates, and by its expected statistics. With the own shift, the
    shift in the corrected condition: total ≤ own + inherited, up to eps. NaN where no channel is
    defined.
    """
    scale = torch.where(estimated_var + eps > 0, estimated_var + eps, torch.nan).sqrt()
    mean_part = (deployed[0] - corrected[0]) / scale
    std_part = (deployed[1].sqrt() - corrected[1].sqrt()) / scale
    return float(channel_mean(mean_part.square() + std_part.square()).sqrt())


def mixed(
    new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor], weight: float
) -> tuple[Tensor, Tensor]:
    """(mean, variance) mixed with `weight` on the new ones, as Schneider et al. 2020 do.

    Theirs is weight = n/(N + n) for n samples and a prior worth N (arXiv:2006.16971, equation 3).
    An old statistic that is not finite does not count.
    """
    mean, var = ((1 - weight) * o + weight * n for o, n in zip(old, new, strict=True))
    usable = (old[0] + old[1]).isfinite()
    return torch.where(usable, mean, new[0]), torch.where(usable, var, new[1])


def channel_mean(values: Tensor) -> Tensor:
    """The mean over defined channels, (…, C) → (…); NaN where no channel is defined."""
    return values.nanmean(-1)


def gamma_weighted_mean(values: Tensor, gamma: Tensor) -> Tensor:
    """Σγ²·value / Σγ² over defined channels, (…, C) → (…): the share of the layer's output.

    `gamma` (C,) is the affine weight. NaN where γ is zero in every defined channel.
    """
    defined = ~values.isnan()
    weight = gamma.square() * defined
    return (weight * values.nan_to_num(0.0)).sum(-1) / weight.sum(-1)


def unnormalised_norms(
    mean: Tensor, var: Tensor, estimated_mean: Tensor, estimated_var: Tensor
) -> tuple[float, float]:
    """Huang et al. 2022's own magnitudes: (‖m̂ − m‖₂, ‖√v̂ − √v‖₂) over the channels."""
    std_gap = estimated_var.clamp(min=0).sqrt() - var.sqrt()
    return float((estimated_mean - mean).norm()), float(std_gap.norm())


@dataclass(frozen=True)
class LogRatio:
    """ln(v̂/v) over the channels where both variances are above ε: median, spread, share above 0.

    `spread` is 1.4826 times the median absolute deviation: the standard deviation, of normal ones.
    """

    median: float
    spread: float
    above: float
    channels: int


def log_variance_ratio(estimated_var: Tensor, var: Tensor, eps: float) -> LogRatio | None:
    """How the estimated variances relate to the expected ones, each (C,) float64.

    Medians, because a few odd channels say nothing about what all have in common. None where no
    channel has variances above `eps`, which would drown their ratio.
    """
    used = (estimated_var > eps) & (var > eps) & estimated_var.isfinite()
    if not bool(used.any()):
        return None
    ratio = (estimated_var[used] / var[used]).log()
    median = ratio.quantile(0.5)
    spread = 1.4826 * (ratio - median).abs().quantile(0.5)
    above = (ratio > 0).double().mean()
    return LogRatio(float(median), float(spread), float(above), int(used.sum()))


def concentration(squared_shift: Tensor, gamma: Tensor) -> float | None:
    """The share of Σγ²d² that the twentieth of the channels with most of it carries, (C,) each.

    At least one channel; undefined ones are left out. None where the sum is 0.
    """
    weighted = gamma.square() * squared_shift.nan_to_num(0.0)
    whole = float(weighted.sum())
    if whole <= 0:
        return None
    few = max(1, len(weighted) // 20)
    return float(weighted.topk(few).values.sum()) / whole
