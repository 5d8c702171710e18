"""BN102, BN103: how the shift is handed on from layer to layer."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings.phrases import (
    evidence,
    named,
    names_of,
    number,
    plural,
    root_mean_square,
    some_of,
)
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.shifted import SHIFT_THRESHOLD, shifted_layers
from bnaudit.results import Audit, LayerAudit


@rule(
    "BN102",
    "accumulates-over-depth",
    "info",
    Audit,
    means="The shift grows with depth because each layer hands its error on: the deep layers are "
    "off mainly for what stands upstream of them.",
    computed="All of: the rank correlation (Spearman) of the total shift with depth; the root mean "
    "square of the total shift over the last third of the layers against the first third; and, in "
    "the last third, the inherited shift above the own shift (root mean squares). Own shift: with "
    "everything upstream normalising by its expected statistics; inherited: "
    "`√(mean of ((m_dep − m_cor)/ŝ)² + ((√v_dep − √v_cor)/ŝ)²)`.",
    matters="Estimation shift accumulates over stacked BatchNorm layers; a batch-free norm in "
    "between blocks it (Huang 2022). The correlation alone proves little, for own shifts can grow "
    "with depth too; therefore the third condition.",
    remedy="Recalibrate all layers together, not one after another from their deployed inputs; "
    "when you train anew, a batch-free norm in each block (XBNBlock) stops the accumulation.",
    source="Huang et al. 2022 (arXiv:2203.10778), sections 3 and 4",
    thresholds=(
        Threshold(
            "spearman", 0.5, "Rank correlation, −1 to 1. Below, depth explains little.", least=-1
        ),
        Threshold(
            "growth",
            1.5,
            "Ratio of the two root mean squares. Noise and architecture alone give up to about "
            "1.3 in the sample models.",
        ),
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "Output shift that some layer has to exceed, BN101.",
            same_as="BN101",
        ),
    ),
    unless=("BN301",),
)
def accumulates(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The last third of the layers is worse than the first, and it inherits that."""
    found = audit.attribution
    layers = _attributed(audit)
    if found is None or found.spearman is None or not found.last_third or len(layers) < 3:
        return
    growth = found.last_third / found.first_third if found.first_third else float("inf")
    last = layers[-(len(layers) // 3) :]
    inherited = root_mean_square([layer.inherited_shift or 0.0 for layer in last])
    own = root_mean_square([layer.own_shift.value for layer in last if layer.own_shift])
    grows = found.spearman >= limits["spearman"] and growth >= limits["growth"]
    shifted = names_of(shifted_layers(audit, limits["shift"]))
    if not (grows and inherited > own and any(layer.name in shifted for layer in last)):
        return
    yield Found(
        f"The shift grows with depth, from {number(found.first_third or 0.0)} over the first third "
        f"of the layers to {number(found.last_third)} over the last (root mean square; rank "
        f"correlation {found.spearman:+.2f}), and the last third inherits more "
        f"({number(inherited)}) than it causes ({number(own)}).",
        names_of(last),
        {
            "spearman": found.spearman,
            "first_third": found.first_third,
            "last_third": found.last_third,
            "inherited_last_third": inherited,
            "own_last_third": own,
        },
    )


@rule(
    "BN103",
    "inherited-shift",
    "info",
    Audit,
    means="Some layers are off for what stands upstream, more than for their own estimates; the "
    "finding names them, and says which layers cause it.",
    computed="A layer inherits more than it causes when its inherited shift exceeds the upper 95% "
    "limit of its own shift, and BN101's test names it. The causes: of the layers upstream of the "
    "one that inherits most, the fewest that hold half of the sum of squared own output shifts.",
    matters="A layer that only inherits is mended by mending the layers that cause it (Huang "
    "2022). Where the first layer is the only cause, the data are to be looked at first.",
    remedy="Look at the layers that cause it; recalibrating all layers together mends both.",
    source="Huang et al. 2022 (arXiv:2203.10778), section 3",
    thresholds=(
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "Output shift, as in BN101: of layers that are off.",
            same_as="BN101",
        ),
    ),
    unless=("BN301",),
)
def inherited(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Layers whose shift comes from upstream, and the layers it comes from."""
    shifted = names_of(shifted_layers(audit, limits["shift"]))
    layers = _attributed(audit)
    victims = [layer for layer in layers if layer.name in shifted and _inherits_more(layer)]
    if not victims:
        return
    worst = max(victims, key=lambda layer: layer.inherited_shift or 0.0)
    causes = _causes(layers[: layers.index(worst)])
    own = worst.own_shift.value if worst.own_shift is not None else 0.0
    first = layers[0].name
    only_first = causes == (first,)
    where = f"{named(first)}, the first" if only_first else some_of(causes)
    yield Found(
        f"{plural(len(victims), 'layer')} of {len(layers)} "
        f"{'is' if len(victims) == 1 else 'are'} off mainly for what comes from upstream "
        f"({named(worst.name)} inherits {number(worst.inherited_shift or 0.0)}, its own is "
        f"{number(own)}); it comes from {where}.",
        names_of(victims),
        {
            "causes": list(causes),
            "layers": {
                layer.name: {"inherited": layer.inherited_shift, "own": evidence(layer.own_shift)}
                for layer in victims
            },
        },
        remedy="The first layer causes it, which sees the data as they come: look at the data and "
        "their preprocessing before you recalibrate."
        if only_first
        else None,
    )


def _causes(upstream: list[LayerAudit]) -> tuple[str, ...]:
    """The fewest layers that hold half of the squared own output shift."""
    left = sum(_own_output(layer) ** 2 for layer in upstream) / 2
    causes = []
    for layer in sorted(upstream, key=_own_output, reverse=True):
        causes.append(layer.name)
        left -= _own_output(layer) ** 2
        if left <= 0:
            break
    return tuple(causes)


def _attributed(audit: Audit) -> list[LayerAudit]:
    return [
        layer
        for layer in audit.audited
        if layer.own_shift is not None and layer.inherited_shift is not None
    ]


def _inherits_more(layer: LayerAudit) -> bool:
    high = layer.own_shift.high if layer.own_shift is not None else None
    return high is not None and (layer.inherited_shift or 0.0) > high


def _own_output(layer: LayerAudit) -> float:
    return layer.own_output_shift.value if layer.own_output_shift is not None else 0.0
