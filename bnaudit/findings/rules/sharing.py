"""Statistics shared between the calls of a layer: BN313."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from bnaudit.findings.domains_worth import SIGNIFICANCE
from bnaudit.findings.phrases import named, number, some_of, with_interval
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.shifted import SHIFT_THRESHOLD, beyond
from bnaudit.results.domains import Domains
from bnaudit.results.sharing import Sharing


@rule(
    "BN313",
    "sharing-statistics-costs",
    "warning",
    Domains,
    means="A layer that is called several times in a forward loses by having one set of statistics "
    "for all its calls.",
    computed="Exact statistics for all calls of a layer together against exact statistics for each "
    "call, every call upstream having its own too, on the verification data of all domains. With "
    "labels: a significant gain of accuracy by separate ones (McNemar's exact test, 5%); the loss "
    "is shown and decides nothing. Otherwise the outputs have to move by more than the threshold "
    "while the shared statistics are off at some call beyond the threshold (family-wise 5%).",
    matters="A head that is shared over feature levels, or a siamese branch, sees another "
    "distribution at each call. Wu 2021, section 5.2, finds in RetinaNet's head that training by "
    "each level's own batch statistics needs each level's own statistics at inference: shared "
    "ones are inconsistent with training.",
    remedy="Give each call a BatchNorm layer of its own, and share the other weights; or use a "
    "batch-free norm there. Statistics alone cannot be exchanged from call to call in a plain "
    "BatchNorm module.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 5.2; keras issue 8794; mtan issue 28",
    thresholds=(
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "ESM of the shared statistics at a call, in standard deviations, as in BN101.",
            same_as="BN101",
        ),
        Threshold(
            "moved",
            0.05,
            "Without labels: the relative RMS difference of the outputs, or the share of top-1 "
            "classes, that separate statistics have to change.",
        ),
    ),
)
def sharing_statistics_costs(result: Domains, limits: Limits) -> Iterator[Found]:
    """Separate statistics are better, or without labels at least different."""
    sharing = result.sharing
    if sharing is None or sharing.separate is None:
        return
    calls = [(layer, call) for layer in sharing.layers for call in layer.calls]
    far = beyond([call.from_shared for _, call in calls], limits["shift"])
    found = [one for one, is_far in zip(calls, far, strict=True) if is_far]
    said = _better(sharing)
    if said is None and found and sharing.accuracy is None:
        said = _moved(sharing, limits["moved"])
    if said is None:
        return
    names = tuple(dict.fromkeys(layer.name for layer, _ in found)) or tuple(
        layer.name for layer in sharing.layers
    )
    known = [(layer, call, call.from_shared) for layer, call in calls if call.from_shared]
    worst, call, estimate = max(known, key=lambda each: each[2].value)
    yield Found(
        f"Statistics for each call of {some_of(names)} {said}; the shared ones are off by "
        f"{with_interval(estimate)} at call {call.call + 1} of {len(worst.calls)} of "
        f"{named(worst.name)}.",
        names,
        {
            "accuracy": asdict(sharing.accuracy) if sharing.accuracy else None,
            "loss": asdict(sharing.loss) if sharing.loss else None,
            "relative_rms": sharing.separate.relative_rms,
        },
    )


def _better(sharing: Sharing) -> str | None:
    """What separate statistics gain for certain, where there are labels."""
    accuracy = sharing.accuracy
    significant = sharing.p_value is not None and sharing.p_value < SIGNIFICANCE
    if accuracy is not None and significant and accuracy.difference > 0:
        return f"raise the accuracy by {100 * accuracy.difference:.1f} points"
    return None


def _moved(sharing: Sharing, least: float) -> str | None:
    """What separate statistics do to the outputs, for better or worse, where it is much."""
    outputs = sharing.separate
    if outputs is None:
        return None
    if outputs.agreement is not None:
        changed = 1 - outputs.agreement.value
        said = f"change {changed:.0%} of the top-1 classes (without labels, for better or worse)"
        return said if changed > least else None
    moved = outputs.relative_rms or 0.0
    said = f"move the outputs by {number(moved)} (relative RMS, for better or worse)"
    return said if moved > least else None
