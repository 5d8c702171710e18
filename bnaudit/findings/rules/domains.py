"""Several domains, one network: BN310 to BN312, BN314 and BN315."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from bnaudit.findings.domains_commands import again
from bnaudit.findings.domains_worth import NAMES, in_points
from bnaudit.findings.phrases import (
    evidence,
    named,
    number,
    plural,
    which_layers,
    with_interval,
)
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.shifted import SHIFT_THRESHOLD, beyond
from bnaudit.results.domains import CHECKPOINT, POOLED, Domains, Gain

COMMON_CODE = "BN312"
"""Whose threshold `margin` says which gain does not count."""

_WU = "Wu & Johnson 2021 (arXiv:2105.07576), section 5"


@rule(
    "BN310",
    "domains-differ",
    "info",
    Domains,
    means="The layers see another distribution in one domain than in another: one set of "
    "statistics cannot fit both.",
    computed="Exact statistics on the calibration data of each domain. For each layer and each "
    "pair of domains `δ² = Σγ²((m₁−m₂)² + (√v₁−√v₂)²)/((v₁+v₂)/2 + ε) / Σγ²`, the squared "
    "2-Wasserstein distance of the two Gaussians in units of their mean variance, debiased and "
    "with its jackknife interval, the populations taken as independent. Reported where the "
    "interval's lower limit exceeds the threshold, family-wise 5% over all layers and pairs "
    "(Holm). The interval takes the statistics upstream as given.",
    matters="BatchNorm assumes that training and inference see one distribution. Where they do "
    "not, normalising each domain by its own statistics often recovers what a shift of the domain "
    "costs (Wu 2021, section 5; AdaBN). A distance is no loss of accuracy by itself: BN311 and "
    "BN312 say whether it matters.",
    remedy="Look whether own statistics pay (BN311); if they do not, nothing has to be done.",
    source=f"{_WU}; Li et al. 2016 (AdaBN, arXiv:1603.04779)",
    thresholds=(
        Threshold(
            "distance",
            SHIFT_THRESHOLD,
            "Distance of two domains in a layer, in standard deviations, that the interval's lower "
            "limit has to exceed: as large as an output shift that counts.",
        ),
    ),
)
def domains_differ(result: Domains, limits: Limits) -> Iterator[Found]:
    """The distance exceeds the threshold beyond noise."""
    estimates = [
        (layer, pair, one)
        for layer in result.layers
        for pair, one in zip(result.pairs, layer.distances, strict=True)
    ]
    far = beyond([one for *_, one in estimates], limits["distance"])
    found = [
        (layer, pair, one)
        for (layer, pair, one), is_far in zip(estimates, far, strict=True)
        if is_far and one is not None
    ]
    if not found:
        return
    worst, pair, estimate = max(found, key=lambda each: each[2].value)
    names = tuple(dict.fromkeys(layer.name for layer, *_ in found))
    pairs = dict.fromkeys(pair for _, pair, _ in found)
    differ = "differ" if len(result.names) == 2 else f"differ in {len(pairs)} of {_pairs(result)}"
    see = "sees" if len(names) == 1 else "see"
    yield Found(
        f"The domains {differ}: {which_layers(names, len(result.layers))} {see} another "
        f"distribution; farthest apart are {pair[0]} and {pair[1]} in {named(worst.name)}, by "
        f"{with_interval(estimate)} standard deviations.",
        names,
        {
            "pairs": {f"{a} {b}": result.distance(a, b) for a, b in pairs},
            "largest": evidence(estimate),
        },
    )


def _pairs(result: Domains) -> str:
    return plural(len(result.pairs), "pair")


@rule(
    "BN311",
    "own-statistics-pay",
    "warning",
    Domains,
    means="With statistics of its own a domain is classified significantly better than with the "
    "best statistics that all domains can share.",
    computed="On verification data that took no part: the network with the domain's own exact "
    "statistics against the better of the checkpoint's and the pooled ones (by mean accuracy over "
    "the domains). McNemar's exact test on the same samples, family-wise 5% over the domains "
    "(Holm); the interval of the gain is Tango's.",
    matters="It is accuracy that costs no training: the weights stay, only the means and variances "
    "of each BatchNorm layer are exchanged with the domain (AdaBN; Wu 2021, section 5). It needs "
    "to be known at inference which domain a sample is of, and batches of one domain.",
    remedy="Keep a bank of statistics (--bank) and put in the right ones with "
    'bnaudit.apply_domain(model, bank, "NAME"), or write a checkpoint for each domain '
    "(--write-checkpoints).",
    source=f"{_WU}; Li et al. 2016 (AdaBN, arXiv:1603.04779)",
)
def own_statistics_pay(result: Domains, limits: Limits) -> Iterator[Found]:
    """A significant gain."""
    better = _significant(result.worth.gains, sign=1)
    if better and len(result.names) > 1:
        common = result.worth.common
        assert common is not None
        yield Found(
            f"Statistics of their own raise the accuracy of {plural(len(better), 'domain')} of "
            f"{len(result.names)} beyond {NAMES[common]}: {_figures(better)}; all of them take "
            f"{_size(result.bank_bytes)}.",
            (),
            _evidence(better),
            command=again(result, "--bank", "domains.safetensors"),
        )


@rule(
    COMMON_CODE,
    "common-statistics-suffice",
    "info",
    Domains,
    means="One set of statistics serves all domains: statistics of their own gain next to nothing.",
    computed="As BN311; reported where the upper 95% limit of the gain stays below the margin for "
    "every labelled domain.",
    matters="A bank of statistics has to be kept in step with the weights, and every sample has to "
    "be told its domain. What gains nothing is not worth that.",
    remedy="Keep one set: the pooled statistics where they are better than the checkpoint's "
    "(--write-checkpoints writes a checkpoint with them), else the checkpoint's.",
    source=_WU,
    thresholds=(
        Threshold(
            "margin",
            0.01,
            "The gain of top-1 accuracy, 0 to 1, up to which statistics of its own are not worth "
            "their trouble: a point.",
        ),
    ),
)
def common_statistics_suffice(result: Domains, limits: Limits) -> Iterator[Found]:
    """Every gain is small for certain."""
    if result.worth.level != "common":
        return
    pooled = _significant(result.worth.pooled_gains, sign=1)
    use = "the checkpoint's statistics do for all domains"
    if result.worth.common == POOLED:
        use = "statistics of all domains together do for all"
    better = f" The pooled ones beat the checkpoint's: {_figures(pooled)}." if pooled else ""
    yield Found(
        f"No domain gains more than {in_points(limits['margin'])} by statistics of its own: "
        f"{use}.{better}",
        (),
        _evidence(result.worth.gains),
        command=again(result, "--write-checkpoints", "checkpoints") if pooled else None,
    )


@rule(
    "BN314",
    "domains-undecided",
    "info",
    Domains,
    means="The verification data do not tell whether statistics of its own for each domain pay.",
    computed="As BN311 and BN312: no gain is significant, and a gain beyond the margin is not "
    "ruled out for every domain; or there are no labels.",
    matters="A better fit of the statistics is no proof of a better accuracy: weights can have "
    "adapted to the statistics that they were trained with.",
    remedy="Give more verification samples (--verify-samples, --verify-split), or labels.",
    source=_WU,
)
def domains_undecided(result: Domains, limits: Limits) -> Iterator[Found]:
    """Neither a gain nor its absence is certain."""
    open_question = result.worth.level in ("undecided", "unlabelled")
    if open_question and len(result.names) > 1:
        yield Found(result.worth.sentence, (), _evidence(result.worth.gains))


@rule(
    "BN315",
    "own-statistics-hurt",
    "warning",
    Domains,
    means="With exact statistics of its own a domain is classified significantly worse than with "
    "the checkpoint's or the pooled ones.",
    computed="As BN311, with a loss in place of a gain.",
    matters="Statistics of too few samples are noise, a domain whose classes are mixed in other "
    "shares than in training has other statistics for that alone, and weights that were trained "
    "with frozen statistics expect just these.",
    remedy="Keep the common statistics for these domains; or take more samples, mixed as the "
    "classes were in training.",
    source=f"{_WU}; Schneider et al. 2020 (arXiv:2006.16971)",
)
def own_statistics_hurt(result: Domains, limits: Limits) -> Iterator[Found]:
    """A significant loss."""
    worse = _significant(result.worth.gains, sign=-1)
    if worse and len(result.names) > 1:
        floors = {one.name: one.noise_floor for one in result.domains}
        noise = [floor for gain in worse if (floor := floors[gain.domain]) is not None]
        off = f"; chance puts its statistics off by up to {number(max(noise))}" if noise else ""
        yield Found(
            f"Statistics of their own lower the accuracy of {plural(len(worse), 'domain')} against "
            f"{NAMES[result.worth.common or CHECKPOINT]}: {_figures(worse)}{off}.",
            (),
            _evidence(worse),
        )


def _significant(gains: Sequence[Gain], sign: int) -> list[Gain]:
    return [one for one in gains if one.significant and sign * one.accuracy.difference > 0]


def _figures(gains: Sequence[Gain]) -> str:
    shown = sorted(gains, key=lambda one: -abs(one.accuracy.difference))[:3]
    said = ", ".join(
        f"{one.domain} {100 * one.accuracy.before:.1f}% to {100 * one.accuracy.after:.1f}%"
        f"{_limits(one)}"
        for one in shown
    )
    more = len(gains) - len(shown)
    return f"{said} and {more} more" if more else said


def _limits(gain: Gain) -> str:
    low, high = gain.accuracy.low, gain.accuracy.high
    if low is None or high is None:
        return ""
    return f" (95% interval of the gain {100 * low:+.1f} to {100 * high:+.1f} points)"


def _size(count: int) -> str:
    return f"{count / 1000:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def _evidence(gains: Sequence[Gain]) -> dict[str, object]:
    return {
        one.domain: {**asdict(one.accuracy), "p_value": one.p_value, "significant": one.significant}
        for one in gains
    }
