"""How the output shift of layers differs between two Audits of any samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnaudit.findings.matching import Match
from bnaudit.results import Estimate, LayerAudit
from bnaudit.stats.paired import Floats, Paired
from bnaudit.stats.paired_roots import difference_of_squares, narrower
from bnaudit.stats.roots import (
    MIN_GROUPS,
    RootFigure,
    correlation,
    jackknife_root,
    root_difference,
    root_figure,
)


@dataclass(frozen=True)
class Shift:
    """A shift on one side, with its square without each group, (k,) or empty."""

    estimate: Estimate
    left_out: Floats

    @classmethod
    def of_output(cls, layer: LayerAudit) -> Shift | None:
        """The output shift of a layer; None where it has none, or one that is not finite."""
        return _shift(layer.output_shift, layer.left_out_squared_output_shift)

    @classmethod
    def of_total(cls, layer: LayerAudit) -> Shift | None:
        """The ESM of a layer; None where it has none, or one that is not finite."""
        return _shift(layer.total_shift, layer.left_out_squared_shift)

    @property
    def squared(self) -> float:
        """D² − b, which may be below 0."""
        known = self.estimate
        if known.value > 0 or known.noise_floor is None:
            return known.value**2
        return known.plain**2 - known.noise_floor**2

    def root(self, level: float) -> RootFigure | None:
        """The figure with its limits at `level`; None where its error is not known."""
        known = self.estimate
        if known.standard_error is None or known.groups < MIN_GROUPS:
            return None
        deviation = self.left_out - self.left_out.mean() if len(self.left_out) else self.left_out
        return root_figure(self.squared, known.standard_error, known.groups, deviation, level)


def _shift(estimate: Estimate | None, left_out: Sequence[float]) -> Shift | None:
    if estimate is None:
        return None
    known = (estimate.value, estimate.plain, estimate.standard_error, estimate.noise_floor)
    kept = np.array(left_out, dtype=np.float64)
    figures = [figure for figure in known if figure is not None]
    if not (all(map(math.isfinite, figures)) and np.isfinite(kept).all()):
        return None
    return Shift(estimate, kept)


def shift_difference(before: Shift, after: Shift, level: float, *, paired: bool) -> Paired:
    """after − before, with the limits of `root_difference`.

    Paired, the groups of samples are the same on both sides, and the correlation of the figures
    without each of them tells what cancels; where a figure may be 0, which leaves correlations
    out, the limits are those of `difference_of_squares` if they are narrower. Else the sides are
    independent. Limits are withheld where a side has too few groups.
    """
    old, new = before.root(level), after.root(level)
    if old is None or new is None:
        old_value, new_value = before.estimate.value, after.estimate.value
        return Paired(old_value, new_value, new_value - old_value, None, None)
    if not paired:
        return root_difference(old, new, 0.0)
    found = root_difference(old, new, _correlation(old, new))
    if min(old.low, new.low) > 0 or len(old.deviation) != len(new.deviation):
        return found
    change = difference_of_squares(before.squared, after.squared, old, new, level)
    return narrower(found, change)


def root_mean_square_of(layers: Sequence[LayerAudit], level: float) -> RootFigure | None:
    """√(mean over layers of D² − b), D being the output shift, with its limits at `level`.

    Layers that some groups of samples never reached are left out. None where the samples are too
    few for a jackknife, or where an Audit of an older version does not hold what it needs.
    """
    shifts = [shift for shift in map(Shift.of_output, layers) if shift is not None]
    most = max((len(shift.left_out) for shift in shifts), default=0)
    return _mean_root([shift for shift in shifts if len(shift.left_out) == most], level)


def root_mean_square_difference(
    matches: Sequence[Match], level: float, *, paired: bool
) -> Paired | None:
    """The root mean square over the matched layers of the output shift, √(mean of D² − b).

    Layers without figures on a side are left out, and those that some groups of samples never
    reached. What the layers of a side have in common is accounted for: the jackknife is that of
    their mean. Limits are withheld where the samples are too few for one, or where an Audit of an
    older version does not hold what it needs. None without layers.
    """
    pairs = [
        (old, new)
        for old, new in ((Shift.of_output(m.before), Shift.of_output(m.after)) for m in matches)
        if old is not None and new is not None
    ]
    if not pairs:
        return None
    before, after = ([pair[i] for pair in pairs] for i in (0, 1))
    most = [max(len(shift.left_out) for shift in side) for side in (before, after)]
    whole = [i for i, pair in enumerate(pairs) if [len(shift.left_out) for shift in pair] == most]
    old, new = (_mean_root([side[i] for i in whole], level) for side in (before, after))
    if old is None or new is None:
        values = [_root_mean(side) for side in (before, after)]
        return Paired(values[0], values[1], values[1] - values[0], None, None)
    return root_difference(old, new, _correlation(old, new) if paired else 0.0)


def _mean_root(shifts: list[Shift], level: float) -> RootFigure | None:
    if not shifts:
        return None
    left_out = np.mean([shift.left_out for shift in shifts], axis=0)
    plain = sum(shift.estimate.plain**2 for shift in shifts) / len(shifts)
    return jackknife_root(plain, left_out, level)


def _root_mean(shifts: list[Shift]) -> float:
    return math.sqrt(max(0.0, sum(shift.squared for shift in shifts) / len(shifts)))


def _correlation(before: RootFigure, after: RootFigure) -> float:
    """That of what the groups do to the figures; 0 where they are not known by group."""
    if len(before.deviation) != len(after.deviation):
        return 0.0
    return correlation(before.deviation, after.deviation)
