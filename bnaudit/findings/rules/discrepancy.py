"""BN201 to BN204: training and inference disagree, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from bnaudit.findings import commands
from bnaudit.findings.phrases import named, plural
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.shifted import SHIFT_THRESHOLD, shifted_layers
from bnaudit.results import Audit, LayerAudit, NetworkAudit

_DISAGREEMENT = Threshold(
    "disagreement",
    0.01,
    "Share of samples, 0 to 1, whose top-1 class differs, beyond its 95% interval. A healthy "
    "network at its own training batch size stays below (0.004 for the sample model).",
)
_RELATIVE = Threshold(
    "relative_rms",
    0.1,
    "For outputs that are no class scores: their relative root-mean-square difference. A tenth is "
    "a signal-to-noise ratio of 20 dB.",
)
_HOW = (
    "The outputs under mini-batch statistics against those under the estimates, on the same "
    "samples: the top-1 class differs on more than the threshold's share, by the lower limit of "
    "Clopper and Pearson's exact 95% interval; for other outputs the relative RMS difference. Over "
    "the layers, `discrepancy² = shift² + batch noise²`; "
)


_NO_COST = "; the accuracy is not known to suffer"

_NOT_SAID = (
    "Nothing, unless the model is trained with batches so small: say with --train-batch-size how "
    "large they are, per device."
)


@dataclass(frozen=True)
class _Disagreement:
    """How the outputs differ, in words and as data, and what share of it is shift."""

    words: str
    evidence: Mapping[str, float | None]
    shift_share: float


@rule(
    "BN201",
    "disagreement-by-shift",
    "warning",
    Audit,
    means="The network answers otherwise under mini-batch statistics, as in training, than under "
    "its estimates, as at inference; and it is the estimates that are off, not the batches that "
    "are noisy.",
    computed=_HOW + "the shift has more than half of the sum.",
    matters="What was validated in training mode is not what is deployed (Wu 2021, section 4). "
    "This part of the disagreement goes away with better statistics.",
    remedy="Recalibrate; data that took no part decide.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), sections 3 and 4; PyTorch issues 4741 and 5406",
    thresholds=(
        _DISAGREEMENT,
        _RELATIVE,
        Threshold(
            "shift",
            SHIFT_THRESHOLD,
            "Output shift, as in BN101: where no layer exceeds it, the finding is information.",
            same_as="BN101",
        ),
    ),
    unless=("BN205", "BN301", "BN303"),
)
def disagreement_by_shift(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The two conditions disagree, mostly for shift."""
    found = _disagreement(audit, limits)
    if found is None or found.shift_share <= 0.5:
        return
    grave = shifted_layers(audit, limits["shift"])
    yield Found(
        f"{found.words}; {found.shift_share:.0%} of the layers' squared discrepancy is shift of "
        "the estimates, which recalibration removes.",
        (),
        dict(found.evidence),
        severity=None if grave else "info",
        command=commands.recalibrate(audit),
    )


@rule(
    "BN202",
    "disagreement-by-batch-noise",
    "warning",
    Audit,
    means="The network answers otherwise under mini-batch statistics than under its estimates "
    "because mini-batches of this size are too small: their statistics are noisy.",
    computed=_HOW + "the noise has half of the sum or more.",
    matters="No statistics remove it: it belongs to the batch size. A network trained so has seen "
    "noise that it does not see at inference (Wu 2021, section 4; Summers 2020 on Ghost Batch Norm "
    "and on small batches). Where --train-batch-size does not say that it was trained so, this is "
    "information: it must not be.",
    remedy="Train with larger normalisation batches (SyncBatchNorm), with GroupNorm, or finish "
    "training with frozen statistics; measure with --train-batch-size at the size that is really "
    "used.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 4; Summers & Dinneen 2020 "
    "(arXiv:1906.03548), sections 3.2 and 3.4",
    thresholds=(
        _DISAGREEMENT,
        _RELATIVE,
        Threshold(
            "loss",
            0.005,
            "Accuracy, 0 to 1, that the mini-batches' statistics have to cost, significantly "
            "(McNemar's exact test at 5%); where they cost less, or nobody knows, the finding is "
            "information: undecided samples change their class in any network.",
        ),
    ),
    unless=("BN205", "BN301", "BN303"),
)
def disagreement_by_noise(audit: Audit, limits: Limits) -> Iterator[Found]:
    """The two conditions disagree, mostly for batch noise."""
    found = _disagreement(audit, limits)
    if found is None or found.shift_share > 0.5:
        return
    costs = _costs(audit.network, limits["loss"])
    said = audit.train_batch_size is not None
    noisy = [layer for layer in audit.audited if layer.batch_noise is not None]
    worst = max(noisy, key=lambda layer: layer.batch_noise or 0.0)
    yield Found(
        f"{found.words}; {1 - found.shift_share:.0%} of the layers' squared discrepancy is noise "
        f"of batches of {audit.batch_statistics_size} (up to {worst.batch_noise:.2f} in "
        f"{named(worst.name)}), which no statistics remove{'' if costs else _NO_COST}.",
        (),
        dict(found.evidence),
        severity=None if costs and said else "info",
        remedy=None if said else _NOT_SAID,
    )


@rule(
    "BN203",
    "batch-statistics-better",
    "warning",
    Audit,
    means="The network is more accurate under mini-batch statistics than under its own estimates: "
    "the weights are fine, the estimates are not.",
    computed="Top-1 accuracy on the same labelled samples under both; McNemar's exact test on the "
    "samples that only one of them gets right, at 5%, and a difference of at least the threshold.",
    matters="Estimates over the whole data should do at least as well as those of a mini-batch. "
    "Where they do not, they belong to other weights or other data (Wu 2021, sections 3 and 5).",
    remedy="Recalibrate on data like these; held-out data decide.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), sections 3 and 5; keras issue 6977",
    thresholds=(
        Threshold(
            "gain",
            0.005,
            "Difference of the accuracies, 0 to 1. Half a point: with many samples smaller ones "
            "are significant and do not matter.",
        ),
    ),
    unless=("BN205", "BN301", "BN303"),
)
def batch_statistics_better(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Significantly more samples are right under the mini-batches' statistics."""
    network = audit.network
    if network is None or network.deployed_compared is None or network.batch_statistics is None:
        return
    only_deployed, only_batch = network.only_deployed_correct, network.only_batch_correct
    if only_deployed is None or only_batch is None:
        return
    from bnaudit.stats.paired import mcnemar

    gain = network.batch_statistics.accuracy - network.deployed_compared.accuracy
    p_value = mcnemar(only_deployed, only_batch)
    if gain < limits["gain"] or p_value >= 0.05:
        return
    yield Found(
        f"Top-1 accuracy is {network.batch_statistics.accuracy:.1%} under mini-batch statistics at "
        f"{network.batch_size} and only {network.deployed_compared.accuracy:.1%} under the "
        f"estimates ({plural(network.compared, 'sample')}; {only_batch} are right only so, "
        f"{only_deployed} only under the estimates).",
        (),
        {
            "deployed": network.deployed_compared.accuracy,
            "batch_statistics": network.batch_statistics.accuracy,
            "only_deployed_correct": only_deployed,
            "only_batch_correct": only_batch,
            "p_value": p_value,
        },
        command=commands.recalibrate(audit),
    )


@rule(
    "BN204",
    "other-eps-better",
    "warning",
    Audit,
    means="The network is more accurate with the other usual eps, 1e-3 in place of 1e-5 or the "
    "reverse: it was trained with that one, and lost it when it was ported.",
    computed="Tried where BN018's figure is at least 0.05 in some layer: top-1 accuracy on up to "
    "256 labelled samples under both eps; McNemar's exact test at 5%, and a difference of at least "
    "the threshold.",
    matters="No checkpoint stores eps. With the wrong one the network runs and is silently worse: "
    "mAP 0.36 in place of 0.55 in a port of YOLO.",
    remedy="Set the eps that the model was trained with (timm: bn_eps=1e-3; Keras and TensorFlow: "
    "1e-3), and measure again; new statistics do not mend it.",
    source="LibreYOLO issue 700, tensorrtx issue 1444, transformers issue 18597, ao issue 2980",
    thresholds=(Threshold("gain", 0.005, "Difference of the accuracies, 0 to 1, as in BN203."),),
    unless=("BN301",),
)
def other_eps_better(audit: Audit, limits: Limits) -> Iterator[Found]:
    """Significantly more samples are right with the other eps."""
    tried = audit.data_checks.other_eps
    if tried is None or tried.other - tried.own < limits["gain"]:
        return
    from bnaudit.stats.paired import mcnemar

    p_value = mcnemar(tried.only_own, tried.only_other)
    if p_value < 0.05:
        yield Found(
            f"With eps {tried.eps:g} top-1 accuracy is {tried.other:.1%}, with the model's own "
            f"{tried.own:.1%} ({plural(tried.samples, 'sample')}; {tried.only_other} are right "
            f"only so, {tried.only_own} only with its own).",
            (),
            {**asdict(tried), "p_value": p_value},
        )


def _costs(network: NetworkAudit | None, least: float) -> bool:
    """Whether the mini-batches' statistics are significantly less accurate than the estimates."""
    if network is None or network.deployed_compared is None or network.batch_statistics is None:
        return False
    loss = network.deployed_compared.accuracy - network.batch_statistics.accuracy
    only_deployed, only_batch = network.only_deployed_correct, network.only_batch_correct
    if only_deployed is None or only_batch is None or loss < least:
        return False
    from bnaudit.stats.paired import mcnemar

    return mcnemar(only_deployed, only_batch) < 0.05


def _disagreement(audit: Audit, limits: Limits) -> _Disagreement | None:
    """Whether the outputs differ beyond the threshold; None where they do not, or nobody knows."""
    network, share = audit.network, _shift_share(audit.audited)
    if network is None or share is None:
        return None
    if network.agreement is not None:
        return _of_classes(network, network.agreement, share, limits["disagreement"])
    if network.relative_rms is not None and network.relative_rms > limits["relative_rms"]:
        words = (
            f"Under mini-batch statistics at {network.batch_size} the outputs differ by "
            f"{network.relative_rms:.0%} (relative RMS)"
        )
        evidence = {"relative_rms": network.relative_rms, "shift_share": share}
        return _Disagreement(words, evidence, share)
    return None


def _of_classes(
    network: NetworkAudit, agreement: float, shift_share: float, threshold: float
) -> _Disagreement | None:
    from bnaudit.stats.quantiles import share_interval

    differing = round((1 - agreement) * network.compared)
    low, high = share_interval(differing, network.compared)
    value = differing / network.compared
    if low <= threshold:
        return None
    words = (
        f"Under mini-batch statistics at {network.batch_size} the top-1 class differs on "
        f"{value:.1%} of {plural(network.compared, 'sample')} (95% interval {low:.1%} to "
        f"{high:.1%})"
    )
    evidence = {
        "disagreement": value,
        "low": low,
        "high": high,
        "kl": network.kl,
        "shift_share": shift_share,
    }
    return _Disagreement(words, evidence, shift_share)


def _shift_share(layers: list[LayerAudit]) -> float | None:
    """The share of Σ discrepancy² over the layers that is not batch noise."""
    pairs = [
        (layer.discrepancy, layer.batch_noise)
        for layer in layers
        if layer.discrepancy is not None and layer.batch_noise is not None
    ]
    whole = sum(discrepancy**2 for discrepancy, _ in pairs)
    if whole == 0:
        return None
    return max(0.0, 1 - sum(noise**2 for _, noise in pairs) / whole)
