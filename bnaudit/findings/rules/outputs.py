"""BN205: the network's outputs are not finite."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings.phrases import plural
from bnaudit.findings.rule import Found, Limits, rule
from bnaudit.results import Audit


@rule(
    "BN205",
    "non-finite-outputs",
    "error",
    Audit,
    means="For some samples the network answers with something that is not finite, though the "
    "BatchNorm layers' activations are: class scores with NaN or +∞, or of which all are −∞; or "
    "NaN in any other output. A single −∞ excludes a class and is not meant.",
    computed="The samples are counted whose outputs are so under the estimates, in the pass that "
    "measures the layers. An output without an axis of samples counts for all of its batch.",
    matters="Such a network says nothing about these samples, and still has a top-1 class: that "
    "of NaN is the first one.",
    remedy="Look at the weights of the layers behind the last BatchNorm for NaN, and at overflow "
    "in half precision (--dtype float32 tells): new statistics do not mend it.",
    source="PyTorch's documentation, notes on numerical accuracy: extremal values and half "
    "precision",
)
def non_finite_outputs(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Samples whose deployed output is not finite."""
    network, data = audit.network, audit.data
    if network is None or data is None or not network.not_finite:
        return
    count = network.not_finite
    what = "NaN or infinite class scores" if network.task == "classification" else "NaN"
    yield Found(
        f"The outputs of {count:,} of {plural(data.samples, 'sample')} are not finite ({what}).",
        (),
        {"not_finite": count, "samples": data.samples},
    )
