"""How the layers' shift changed between two Audits of the same samples."""

from __future__ import annotations

import numpy as np

from bnaudit.results import Audit, Change, LayerAudit
from bnaudit.stats.paired import Floats, Paired
from bnaudit.stats.roots import (
    RootFigure,
    correlation,
    jackknife_change,
    jackknife_root,
    root_difference,
)


def layer_shift_change(before: Audit, after: Audit) -> Change | None:
    """The root mean square of the layers' ESM before and after, √(mean over layers of D² − b).

    Both Audits measure the same samples in the same order, with different statistics. Layers are
    matched by name; those without figures on a side are left out, and those that some groups of
    samples never reached. The limits are those of `jackknife_change`, with the layers' mean D² as
    the squared figure, so that what the layers and the two sides have in common is accounted for.
    They are withheld where the samples are too few for a jackknife.
    """
    pairs = _matched(before, after)
    if not pairs:
        return None
    squares = np.array([[_squared(old), _squared(new)] for old, new in pairs]).mean(0)
    mean = _left_out(pairs).mean(0)
    change = jackknife_change(squares[0], mean[0], squares[1], mean[1])
    if change is None:
        values = np.array([_values(pair) for pair in pairs])
        return _without_limits(*np.sqrt((values**2).mean(0)).tolist())
    return Change(*change)


def largest_shift_change(before: Audit, after: Audit) -> Change | None:
    """The ESM of the layer where it is largest, before and after: it need not be the same one.

    Which layer is the largest is estimated too. So the upper limit of a side is the largest of the
    layers' upper limits, which is at least that of the layer that is the largest in truth, and the
    lower limit the largest of their lower limits at a level that holds for all layers at once
    (Bonferroni). The limits of the difference follow from these (`root_difference`); where the two
    sides go together it is taken that they do not. All this errs to the wide side.
    """
    pairs = _matched(before, after)
    if not pairs:
        return None
    left_out = _left_out(pairs)
    old = _largest([_squared(pair[0]) for pair in pairs], left_out[:, 0])
    new = _largest([_squared(pair[1]) for pair in pairs], left_out[:, 1])
    if old is None or new is None:
        return _without_limits(*np.array([_values(pair) for pair in pairs]).max(0).tolist())
    rho = min(0.0, correlation(old.deviation, new.deviation))
    return Change(*root_difference(old, new, rho))


def _largest(squared: list[float], left_out: Floats) -> RootFigure | None:
    """The largest of the layers' figures; `left_out` (L, k)."""
    simultaneous = 1 - 0.05 / len(squared)
    layers, lows = [], []
    for figure, without in zip(squared, left_out, strict=True):
        layer, wide = jackknife_root(figure, without), jackknife_root(figure, without, simultaneous)
        if layer is None or wide is None:
            return None
        layers.append(layer)
        lows.append(wide.low)
    largest = max(layers, key=lambda layer: layer.value)
    high = max(layer.high for layer in layers)
    return RootFigure(largest.value, max(lows), high, largest.deviation)


def _matched(before: Audit, after: Audit) -> list[tuple[LayerAudit, LayerAudit]]:
    """The layers with figures on both sides that every group of samples reached."""
    others = {layer.name: layer for layer in after.audited if layer.total_shift is not None}
    pairs = [
        (layer, others[layer.name])
        for layer in before.audited
        if layer.total_shift is not None and layer.name in others
    ]
    finite = [pair for pair in pairs if np.isfinite(_values(pair)).all()]
    groups = max((_groups(layer) for pair in finite for layer in pair), default=0)
    return [pair for pair in finite if _groups(pair[0]) == _groups(pair[1]) == groups]


def _groups(layer: LayerAudit) -> int:
    return len(layer.left_out_squared_shift)


def _left_out(pairs: list[tuple[LayerAudit, LayerAudit]]) -> Floats:
    """D² without each group, (L, 2, k)."""
    return np.array([[layer.left_out_squared_shift for layer in pair] for pair in pairs])


def _squared(layer: LayerAudit) -> float:
    assert layer.total_shift is not None
    return layer.total_shift.plain**2


def _values(pair: tuple[LayerAudit, LayerAudit]) -> tuple[float, float]:
    old, new = pair[0].total_shift, pair[1].total_shift
    assert old is not None
    assert new is not None
    return old.value, new.value


def _without_limits(before: float, after: float) -> Change:
    return Change(*Paired(before, after, after - before, None, None))
