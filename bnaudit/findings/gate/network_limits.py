"""The limits on the network's outputs: accuracy, loss, and what mini-batch statistics change."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.config import GateSettings
from bnaudit.findings.gate.held import PLAIN, Wording, held, settled, without_figure
from bnaudit.results import Audit, Check, Estimate

_SHARE = Wording(lambda share: f"{100 * share:.3g}%")
_ACCURACY = Wording(lambda wrong: f"{100 * (1 - wrong):.4g}%", beyond="below", other_way_round=True)

_NO_SCORE = "the data have no labels, or the outputs are no class scores"


def network_limits(audit: Audit, settings: GateSettings) -> Iterator[Check]:
    """One check for each limit on the outputs that is set."""
    if settings.max_disagreement is not None:
        yield _disagreement(audit, settings.max_disagreement)
    if settings.min_accuracy is not None:
        yield _accuracy(audit, settings.min_accuracy)
    if settings.max_cross_entropy is not None:
        yield _loss(audit, settings.max_cross_entropy)


def _disagreement(audit: Audit, limit: float) -> Check:
    title = "share of samples whose class differs under mini-batch statistics"
    check = Check("limit", "max_disagreement", title, "pass", "", limit=limit)
    network = audit.network
    if network is not None and not network.compared:
        sentence = "There are fewer samples than one mini-batch: the classes were not compared."
        return settled(check, "inconclusive", sentence, (), "Measure on more samples.")
    if network is None or network.agreement is None:
        return without_figure(check, "the outputs are no class scores")
    n = network.compared
    says = f"The class differs under mini-batch statistics on {{figure}} of {n:,} samples"
    return held(check, says, _share(n - round(network.agreement * n), n), limit, _SHARE)


def _accuracy(audit: Audit, limit: float) -> Check:
    check = Check("limit", "min_accuracy", "top-1 accuracy", "pass", "", limit=limit)
    score = audit.network.deployed if audit.network is not None else None
    if score is None:
        return without_figure(check, _NO_SCORE)
    n = score.samples
    wrong = _share(n - round(score.accuracy * n), n)
    return held(
        check, f"Top-1 accuracy on {n:,} samples is {{figure}}", wrong, 1 - limit, _ACCURACY
    )


def _share(successes: int, n: int) -> Estimate:
    from bnaudit.stats.paired import share

    found = share(successes, n)
    return Estimate(found.value, found.value, found.low, found.high)


def _loss(audit: Audit, limit: float) -> Check:
    check = Check("limit", "max_cross_entropy", "mean cross-entropy", "pass", "", limit=limit)
    score = audit.network.deployed if audit.network is not None else None
    if score is None:
        return without_figure(check, _NO_SCORE)
    if score.loss is None:
        sentence = f"The mean cross-entropy on {score.samples:,} samples is not finite."
        return settled(check, "fail", sentence, (), "Look for outputs that overflow.")
    error = score.loss_standard_error
    low, high = (None, None) if error is None else (score.loss - 2 * error, score.loss + 2 * error)
    low = None if low is None else max(0.0, low)
    estimate = Estimate(score.loss, score.loss, low, high)
    says = f"The mean cross-entropy on {score.samples:,} samples is {{figure}} nats"
    return held(check, says, estimate, limit, PLAIN)
