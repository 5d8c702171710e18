"""What changed from one Audit to another, and what of that is more than noise."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import replace

from bnaudit.findings.comparability import (
    comparability,
    same_figures,
    same_samples,
    same_weights,
    uncompared,
)
from bnaudit.findings.gained import gained
from bnaudit.findings.matching import Match, match_layers
from bnaudit.findings.network_differences import AtLevel, NetworkDifference, network_differences
from bnaudit.findings.shift_differences import (
    Shift,
    root_mean_square_difference,
    shift_difference,
)
from bnaudit.results import (
    Audit,
    Changes,
    Difference,
    LayerAudit,
    LayerChange,
    NetworkChange,
    Side,
)
from bnaudit.stats.paired import Paired

LEVEL = 0.95
FAMILY_LEVEL = 0.99
"""At which `surely_low` and `surely_high` hold for all figures of a comparison at once."""


def changes_between(
    before: Audit,
    after: Audit,
    *,
    before_source: str,
    after_source: str,
    not_in_total: Container[str] = (),
) -> Changes:
    """Two Audits side by side.

    Layers are matched by name, or as renamed (`match_layers`). Each one's output shift and ESM
    differ with the limits of `shift_difference`; the network's figures are the root mean square of
    the output shift over the matched layers, and those of `network_differences`. Where both
    measured the same samples in the same order the comparison is paired. The simultaneous limits
    are Bonferroni's over all output shifts and network figures that both sides have; the unweighted
    ESM takes no part in it, and has none. `before_source`, `after_source`: what to call the sides.
    `not_in_total`: names of layers that are left out of the root mean square.
    """
    matching = match_layers(before.layers, after.layers)
    paired = same_samples(before, after)
    weights = same_weights(before, after)
    same = (paired and weights) or same_figures(before, after)
    in_total = tuple(m for m in matching.matches if m.after.name not in not_in_total)
    network = _network(before, after, in_total, paired=paired)
    shifts = [(Shift.of_output(m.before), Shift.of_output(m.after)) for m in matching.matches]
    compared = len(network) + sum(None not in pair for pair in shifts)
    surely = 1 - (1 - FAMILY_LEVEL) / max(1, compared)
    earlier = {now: was for was, now in matching.now.items()}
    return Changes(
        before=Side.of(before, before_source),
        after=Side.of(after, after_source),
        paired=paired,
        same_weights=weights,
        uncompared=tuple(uncompared(before, after)),
        layers=tuple(
            _certain_layer(layer) if same else layer
            for layer in (_layer(match, surely, paired=paired) for match in matching.matches)
        ),
        network=tuple(
            NetworkChange(one.figure, _certain(difference) if same else difference)
            for one in network
            for difference in (_difference(one.difference, surely),)
        ),
        added=tuple(layer.name for layer in matching.added),
        removed=tuple(layer.name for layer in matching.removed),
        gained=gained(after.findings, before.findings, matching.now),
        lost=gained(before.findings, after.findings, earlier),
        notes=tuple(comparability(before, after, matching)),
    )


def _certain_layer(layer: LayerChange) -> LayerChange:
    output, total = layer.output_shift, layer.total_shift
    return replace(
        layer,
        output_shift=None if output is None else _certain(output),
        total_shift=None if total is None else _certain(total),
    )


def _certain(found: Difference) -> Difference:
    """Of the same weights on the same samples: equal figures are equal on any others too."""
    if found.difference != 0:
        return found
    return replace(found, low=0.0, high=0.0, surely_low=0.0, surely_high=0.0)


def _layer(match: Match, surely: float, *, paired: bool) -> LayerChange:
    before, after = match
    return LayerChange(
        name=after.name,
        before_name=before.name,
        output_shift=_shift(Shift.of_output(before), Shift.of_output(after), surely, paired=paired),
        total_shift=_shift(Shift.of_total(before), Shift.of_total(after), None, paired=paired),
        note="; ".join(_notes(before, after)) or None,
    )


def _notes(before: LayerAudit, after: LayerAudit) -> list[str]:
    notes = []
    for layer, when in ((before, "before"), (after, "after")):
        if layer.output_shift is None:
            why = "γ is 0 in every channel" if layer.total_shift is not None else layer.note
            notes.append(f"no figure {when}: {why or layer.status.replace('-', ' ')}")
        elif Shift.of_output(layer) is None:
            notes.append(f"no figure {when}: it is not finite")
    if before.kind != after.kind:
        notes.append(f"{before.kind} before, {after.kind} after")
    if before.channels != after.channels:
        notes.append(f"{before.channels} channels before, {after.channels} after")
    return notes


def _shift(
    before: Shift | None, after: Shift | None, surely: float | None, *, paired: bool
) -> Difference | None:
    if before is None or after is None:
        return None

    def difference(*, level: float) -> Paired:
        return shift_difference(before, after, level, paired=paired)

    return _difference(difference, surely)


def _network(
    before: Audit, after: Audit, matches: tuple[Match, ...], *, paired: bool
) -> list[NetworkDifference]:
    found = list(network_differences(before, after, paired=paired))
    total = root_mean_square_difference(matches, LEVEL, paired=paired)
    if total is None:
        return found

    def difference(*, level: float) -> Paired:
        again = root_mean_square_difference(matches, level, paired=paired)
        assert again is not None
        return again

    return [NetworkDifference("total_esm", difference), *found]


def _difference(at_level: AtLevel, surely: float | None) -> Difference:
    found = at_level(level=LEVEL)
    sure = at_level(level=surely) if surely is not None else None
    limits = (found.low, found.high, *((sure.low, sure.high) if sure else (None, None)))
    finite = [x if x is not None and math.isfinite(x) else None for x in limits]
    return Difference(found.before, found.after, found.difference, *finite)
