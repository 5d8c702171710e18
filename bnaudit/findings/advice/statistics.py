"""Remedies that change the estimated statistics, or leave them."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings import commands
from bnaudit.findings.advice.case import Case, percent, said
from bnaudit.findings.advice.suggestion import Standing, Suggestion
from bnaudit.results.advice import Sentence

UNUSABLE = ("BN001", "BN002", "BN004", "BN008", "BN053")
"""The stored statistics are none: where labels do not say otherwise, they have to be estimated."""

WRONG_ESTIMATES = (
    *UNUSABLE,
    *("BN007", "BN009", "BN010", "BN019", "BN021", "BN050", "BN051", "BN052"),
    *("BN101", "BN104", "BN105", "BN108", "BN109", "BN201", "BN203"),
)
"""What new statistics may mend."""

TOLD_BY_FIGURES = ("BN101", "BN201", "BN203")
"""Findings whose figures are the scores and the largest shift, which every remedy tells itself."""

DATA_FIRST = ("BN301", "BN303", "BN204", "BN205")
"""What makes the figures those of another data set or another model than the one in use."""

_COST = (
    "One forward pass over some hundred samples of training data or of data like these, no "
    "training; nothing is written unless samples that took no part confirm it."
)


def statistics(case: Case) -> Iterator[Suggestion]:
    """Recalibrate, adapt to the data, or leave the checkpoint as it is."""
    yield from _recalibrate(case)
    yield from _adapt(case)
    yield from _restore(case)
    yield from _leave(case)


def _recalibrate(case: Case) -> Iterator[Suggestion]:
    if not case.has(*WRONG_ESTIMATES) and case.outcome != "better":
        return
    if case.has("BN302") and not case.has("BN108", *DATA_FIRST):
        return  # the estimates are right for the training data: that is `_adapt`
    standing, reason = _standing(case)
    causes = tuple(code for code in WRONG_ESTIMATES if code not in TOLD_BY_FIGURES)
    evidence = (*reason, *case.scores(), *case.largest_shift(), *case.quoted(*causes))
    yield Suggestion(
        "recalibrate",
        "Recalibrate the statistics (exact)",
        standing,
        evidence,
        _COST,
        None if standing is Standing.AGAINST else _command(case),
    )


def _standing(case: Case) -> tuple[Standing, tuple[Sentence, ...]]:
    if case.has(*DATA_FIRST):
        reason = "New statistics would be estimated under what has to be mended first ({code})."
        index = next(i for i, f in enumerate(case.audit.findings) if f.code in DATA_FIRST)
        return Standing.AGAINST, (said(reason, code=case.cite(f"findings[{index}].code")),)
    if case.outcome == "better":
        return Standing.DECIDED, (
            said(
                "The network is better by the statistics of these data than by its estimates: the "
                "weights are good, the estimates are not.",
                *_scored(case),
            ),
        )
    if case.outcome == "open" and case.has(*UNUSABLE):
        return Standing.DECIDED, (
            said("The stored statistics cannot be used as they are.", "findings"),
        )
    if case.outcome == "no better":
        return Standing.AGAINST, (
            said(
                "The statistics of these data are not shown to serve the network better than its "
                "estimates: nothing measured speaks for new ones.",
                *_scored(case),
            ),
        )
    if case.outcome == "divided":
        return Standing.POSSIBLE, (
            said(
                "By the statistics of these data accuracy is better and the loss is worse: the "
                "outcome is open, and bnaudit recalibrate verifies it on samples that took no "
                "part.",
                *_scored(case),
            ),
        )
    return Standing.POSSIBLE, _hidden(case) if case.hidden_by_noise else _open(case)


def _scored(case: Case) -> tuple[str, str]:
    return "network.deployed_compared.accuracy", "network.batch_statistics.accuracy"


def _hidden(case: Case) -> tuple[Sentence, ...]:
    return (
        said(
            "Whether it helps is open: mini-batches have noise of their own, large against the "
            "shift here, which exact statistics have not, so that their scores do not speak "
            "against those; bnaudit recalibrate verifies it on samples that took no part.",
            *_scored(case),
        ),
        *case.most_noise(),
    )


def _open(case: Case) -> tuple[Sentence, ...]:
    network = case.audit.network
    unknown = "without labels nobody knows how accurate the network is now"
    if network is not None and network.task == "other":
        unknown = "outputs that are no class scores have no accuracy here"
    return (
        said(
            f"Whether it helps is open, since {unknown}; bnaudit recalibrate verifies it on "
            "samples that took no part.",
            "network" if network is None else "network.deployed_compared",
        ),
        said(
            "A shift alone is no fault: a network that was fine-tuned with frozen statistics has "
            "one, and is hurt by new statistics.",
            "findings",
        ),
    )


def _command(case: Case) -> str:
    on_training = case.has("BN108")
    give = commands.recalibrate_on_training_data if on_training else commands.recalibrate
    return give(case.audit)


def _adapt(case: Case) -> Iterator[Suggestion]:
    if not case.has("BN302") or case.has(*DATA_FIRST):
        return
    score: tuple[Sentence, ...] = ()
    trained_on = case.audit.trained_on
    if trained_on is not None and trained_on.score is not None:
        score = (
            said(
                "Top-1 accuracy on the training data is {accuracy}.",
                accuracy=case.cite("trained_on.score.accuracy", percent),
            ),
        )
    standing = {
        "better": Standing.DECIDED,
        "open": Standing.POSSIBLE,
        "divided": Standing.POSSIBLE,
        "no better": Standing.AGAINST,
    }[case.outcome]
    yield Suggestion(
        "adapt-to-these-data",
        "Estimate the statistics on the data of deployment",
        standing,
        (*_standing(case)[1], *case.quoted("BN302"), *score, *case.scores()),
        "As recalibration, on some hundred unlabelled samples of deployment; the statistics of "
        "the training data are given up for them.",
        None if standing is Standing.AGAINST else commands.recalibrate(case.audit),
    )


def _restore(case: Case) -> Iterator[Suggestion]:
    if not case.has("BN051", "BN053"):
        return
    yield Suggestion(
        "restore-the-parents-statistics",
        "Take the statistics of the parent checkpoint",
        Standing.POSSIBLE,
        case.instructions("BN051", "BN053"),
        "A copy of a few buffers; the parent checkpoint has to be at hand.",
    )


def _leave(case: Case) -> Iterator[Suggestion]:
    title = "Leave the checkpoint as it is"
    findings = case.audit.findings
    if not findings and case.outcome != "better":
        nothing = said("Nothing has to be done: the Audit has no findings.", "findings")
        evidence = (nothing, *_verdict(case), *case.scores())
        yield Suggestion("leave-as-it-is", title, Standing.DECIDED, evidence, "Nothing.")
        return
    if case.outcome == "better" or case.has(*DATA_FIRST):
        return
    grave = any(finding.severity != "info" for finding in findings)
    if case.outcome in ("no better", "divided"):
        reason = (
            "New statistics are not shown to make the network better."
            if case.outcome == "no better"
            else "Accuracy and loss disagree on whether new statistics make the network better."
        )
        yield Suggestion(
            "leave-as-it-is",
            title,
            Standing.DECIDED,
            (
                said(reason, *_scored(case)),
                *case.scores(),
                *_harmless(case),
            ),
            "Nothing.",
        )
    elif not grave and not case.has(*UNUSABLE):
        evidence = (
            said("The Audit has no finding that is an error or a warning.", "findings"),
            *_verdict(case),
        )
        standing = Standing.POSSIBLE if case.hidden_by_noise else Standing.DECIDED
        yield Suggestion("leave-as-it-is", title, standing, evidence, "Nothing.")
    elif case.hidden_by_noise and not case.has(*UNUSABLE):
        reason = "Where larger batches, or a recalibration, show no gain there is nothing to do."
        yield Suggestion(
            "leave-as-it-is",
            title,
            Standing.POSSIBLE,
            (said(reason, *_scored(case)),),
            "Nothing.",
        )


def _verdict(case: Case) -> tuple[Sentence, ...]:
    if case.audit.verdict is None:
        return ()
    return (said("{sentence}", sentence=case.cite("verdict.sentence")),)


def _harmless(case: Case) -> tuple[Sentence, ...]:
    """Why a shift may be there and do no harm, where there is one."""
    if not case.has("BN101", "BN105", "BN108", "BN201"):
        return ()
    frozen = [layer for layer in case.audit.audited if layer.frozen]
    named: tuple[Sentence, ...] = ()
    if frozen:
        named = (
            said(
                "Layer {name} is frozen: training does not update its statistics.",
                case.layer(frozen[0], "frozen", str).path,
                name=case.layer(frozen[0], "name", str),
            ),
        )
    return (
        *case.largest_shift(),
        *named,
        said(
            "Such a shift is no fault by itself: weights that were trained on with frozen "
            "statistics have adapted to them.",
            "findings",
        ),
    )
