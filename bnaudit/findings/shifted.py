"""Which layers' estimates exceed a threshold beyond their noise. Shared by verdict and rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bnaudit.results import Audit, Estimate, LayerAudit

SHIFT_THRESHOLD = 0.1
"""Output shift, in standard deviations, above which a layer's estimates are called wrong.

A tenth of a standard deviation is one hundredth of the activation's variance: well above what an
EMA of momentum 0.1 leaves at common batch sizes (0.01 to 0.05), well below what costs accuracy in
the sample models (0.3 and more). It is an error of the activations, not a forecast of accuracy.
"""

FAMILY_LEVEL = 0.05


def beyond(estimates: Sequence[Estimate | None], threshold: float) -> list[bool]:
    """Which squared figures exceed the threshold's square: one-sided, family-wise 5% (Holm).

    An estimate that has no interval is not judged, and does not.
    """
    from bnaudit.stats.significance import holm, upper_tail_p

    judged = [e for e in estimates if e is not None and e.standard_error is not None]
    p_values = [
        upper_tail_p(e.value**2, e.standard_error or 0.0, e.groups, threshold**2) for e in judged
    ]
    rejected = {id(e): r for e, r in zip(judged, holm(p_values, FAMILY_LEVEL), strict=True)}
    return [e is not None and rejected.get(id(e), False) for e in estimates]


def shifted_layers(audit: Audit, threshold: float = SHIFT_THRESHOLD) -> list[LayerAudit]:
    """The layers whose output shift exceeds the threshold beyond noise, in call order."""
    layers = audit.audited
    found = beyond([layer.output_shift for layer in layers], threshold)
    return [layer for layer, shifted in zip(layers, found, strict=True) if shifted]


def samples_needed(estimate: Estimate, samples: int, threshold: float) -> int:
    """Standard errors shrink with √n: the n at which the interval clears the threshold."""
    distance = abs(estimate.value**2 - threshold**2)
    half = (estimate.high or 0.0) ** 2 - estimate.value**2
    if distance == 0:
        return 1_000_000_000
    exact = samples * max(1.0, (half / distance) ** 2)
    digits = 10 ** max(0, math.floor(math.log10(max(exact, 1))) - 1)
    return int(math.ceil(exact / digits) * digits)
