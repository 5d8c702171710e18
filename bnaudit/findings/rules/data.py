"""BN302 to BN305: the data moved, batches are no random draws, shared layers, padding."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings import commands
from bnaudit.findings.phrases import evidence, named, number, plural, with_interval
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.shifted import SHIFT_THRESHOLD, beyond
from bnaudit.results import Audit


@rule(
    "BN302",
    "data-moved",
    "warning",
    Audit,
    means="The data are not distributed as the training data are: statistics that were exact on "
    "the training data would not fit them either.",
    computed="With `--train-data`: the output shift that the moments of the training data, taken "
    "as estimates, have on the data; both in eval mode. Its variance is the sum of two "
    "jackknives', over the groups of either data set; tested as in BN101. BN108 says whether the "
    "estimates are wrong as well.",
    matters="Statistics belong to a domain (Wu 2021, section 5; AdaBN). Recalibrating on the new "
    "domain often gives back much of what its shift costs, without labels; mending the data, where "
    "they can be mended, gives back more.",
    remedy="Find out what changed in the data. If they are what the model is to work on, "
    "recalibrate on them; held-out data decide.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 5; Li et al. 2016 (AdaBN, "
    "arXiv:1603.04779); Schneider et al. 2020 (arXiv:2006.16971)",
    thresholds=(
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "Output shift between the two data sets, as in BN101.",
            same_as="BN101",
        ),
    ),
    unless=("BN301",),
)
def data_moved(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The data's moments differ from the training data's beyond threshold and noise."""
    trained = audit.trained_on
    if trained is None:
        return
    differ = beyond([layer.moved for layer in trained.layers], limits["shift"])
    layers = [
        (layer, layer.moved)
        for layer, has_moved in zip(trained.layers, differ, strict=True)
        if has_moved and layer.moved is not None
    ]
    if not layers:
        return
    worst, moved = max(layers, key=lambda pair: pair[1].value)
    wrong = beyond([layer.shift for layer in trained.layers], limits["shift"])
    also = "the estimates are wrong as well (BN108)" if any(wrong) else "the estimates fit those"
    yield Found(
        f"The data moved: {len(layers)} of {plural(len(trained.layers), 'layer')} "
        f"{'sees' if len(layers) == 1 else 'see'} other inputs than on the training data (shift "
        f"{with_interval(moved)} in {named(worst.name)}, the largest); {also}.",
        tuple(layer.name for layer, _ in layers),
        {layer.name: evidence(found) for layer, found in layers},
        command=commands.recalibrate(audit),
    )


@rule(
    "BN303",
    "batches-not-random",
    "warning",
    Audit,
    means="The batches that the loader gave are not random draws of its samples: they are sorted, "
    "by class, by source or by time.",
    computed="The variance of the batches' means, of the labels, of the inputs (images of 4×4 "
    "pixels) and of their means and deviations, over what shuffling the same samples, 512 at most, "
    "gives, with a permutation test at 1% in all. Only for batches that a loader gives: samples "
    "that bnaudit draws from a data set itself are random.",
    matters="Mini-batch statistics of sorted batches are those of one class: training on them "
    "leaks information between the samples of a batch, and everything here that rests on "
    "mini-batches or groups (discrepancy, noise, intervals) is off (Wu 2021, section 6).",
    remedy="Let the loader shuffle (DataLoader(..., shuffle=True)), or give the data set itself.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 6",
    thresholds=(
        Threshold(
            "ratio",
            2.0,
            "Ratio of variances; 1 is random. Twice is beyond what related samples that happen to "
            "lie together give.",
        ),
    ),
)
def batches_not_random(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Between-batch variance far above what shuffling gives."""
    order = audit.data_checks.order
    if order is None:
        return
    level = 0.01 / len(order.spreads)
    far = [s for s in order.spreads if s.ratio >= limits["ratio"] and s.p_value <= level]
    if not far:
        return
    worst = next((spread for spread in far if spread.of == "labels"), None)
    worst = worst or max(far, key=lambda spread: spread.ratio)
    by = "by class" if worst.of == "labels" else "by source, or by time"
    yield Found(
        f"The loader's batches are not random draws: from batch to batch {_COMPARED[worst.of]} "
        f"differ {number(worst.ratio)} times as much (variance) as shuffled ones of the same "
        f"{plural(order.samples, 'sample')} would; they look sorted {by}.",
        (),
        {s.of: {"ratio": s.ratio, "p_value": s.p_value} for s in order.spreads},
    )


_COMPARED = {
    "labels": "their labels",
    "inputs": "their inputs",
    "levels": "the means and deviations of their inputs",
}


@rule(
    "BN304",
    "call-sites-differ",
    "warning",
    Audit,
    means="A layer that the network calls several times in a forward sees another distribution at "
    "each call: no single set of statistics fits all of them.",
    computed="For each call the ESM that statistics of all calls together have there, with its "
    "jackknife; tested as in BN101, over all calls of all shared layers (Holm).",
    matters="Detection heads shared over feature levels, siamese networks, recurrent blocks: "
    "shared statistics are a compromise that training never saw (Wu 2021, section 5.2: layers "
    "shared between domains).",
    remedy="Give each call its own BatchNorm layer (and share the weights around it), or use a "
    "batch-free norm there; recalibration only finds the best compromise.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 5; keras issue 8794; mtan issue 28",
    thresholds=(
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "ESM of the pooled statistics at a call, in standard deviations, as in BN101.",
            same_as="BN101",
        ),
    ),
    unless=("BN301",),
)
def call_sites_differ(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Pooled statistics are far from what a call sees."""
    shared = [layer for layer in audit.audited if len(layer.call_sites) > 1]
    sites = [(layer, site) for layer in shared for site in layer.call_sites]
    far = beyond([site.from_pooled for _, site in sites], limits["shift"])
    found = [
        (layer, site, site.from_pooled)
        for (layer, site), is_far in zip(sites, far, strict=True)
        if is_far and site.from_pooled is not None
    ]
    if not found:
        return
    worst, site, estimate = max(found, key=lambda one: one[2].value)
    names = tuple(dict.fromkeys(layer.name for layer, _, _ in found))
    yield Found(
        f"{plural(len(names), 'layer')} called several times in a forward "
        f"{'sees' if len(names) == 1 else 'see'} another distribution at each call: statistics of "
        f"all {len(worst.call_sites)} calls of {named(worst.name)} together are off by "
        f"{with_interval(estimate)} at call {site.call + 1}.",
        names,
        {
            layer.name: [evidence(one.from_pooled) for one in layer.call_sites]
            for layer in shared
            if layer.name in names
        },
    )


@rule(
    "BN305",
    "padding",
    "warning",
    Audit,
    means="Padding at the end of sequences moves the statistics: without it the estimates fit "
    "better.",
    computed="For BatchNorm layers over (N, C, L): the positions at the end of each sequence that "
    "are all alike are taken for padding. The layer's ESM over all positions against that without "
    "them, with the paired jackknife interval of the difference.",
    matters="BatchNorm counts padding as data: the statistics, and with them the outputs, depend "
    "on how much the batch happened to be padded.",
    remedy="Mask the padding (in --forward, or in the model), or batch sequences of like length.",
    source="PyTorch issue 70529",
    thresholds=(
        Threshold(
            "reduction",
            0.2,
            "Share, 0 to 1, by which leaving out the padding has to lower the ESM.",
        ),
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "ESM, in standard deviations, that it is about.",
            same_as="BN101",
        ),
    ),
)
def padding(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The shift of sequence layers goes away with the padding."""
    layers = [
        padded
        for padded in audit.data_checks.padding
        if padded.shift.before > limits["shift"]
        and padded.shift.high is not None
        and padded.shift.high < 0
        and -padded.shift.difference >= limits["reduction"] * padded.shift.before
    ]
    if not layers:
        return
    worst = min(layers, key=lambda padded: padded.shift.difference)
    yield Found(
        f"Padding moves the statistics of {plural(len(layers), 'layer')}: {worst.share:.0%} of the "
        f"positions are padding, and without them the shift of {named(worst.layer)} is "
        f"{number(worst.shift.after)} in place of {number(worst.shift.before)} (95% interval of "
        f"the difference {number(worst.shift.low or 0.0)} to {number(worst.shift.high or 0.0)}).",
        tuple(padded.layer for padded in layers),
        {
            padded.layer: {
                "share": padded.share,
                "with_padding": padded.shift.before,
                "without": padded.shift.after,
            }
            for padded in layers
        },
    )
