"""Remedies that change the data, or take more of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from bnaudit.findings.advice.case import Case, count, percent, said
from bnaudit.findings.advice.statistics import DATA_FIRST, WRONG_ESTIMATES
from bnaudit.findings.advice.suggestion import Standing, Suggestion
from bnaudit.results.advice import Sentence


def data(case: Case) -> Iterator[Suggestion]:
    """Mend the data, measure more of them, keep statistics for each domain."""
    yield from _mend(case)
    yield from _measure_more(case)
    yield from _domains(case)


def _mend(case: Case) -> Iterator[Suggestion]:
    if case.has("BN301"):
        yield Suggestion(
            "mend-the-preprocessing",
            "Mend the preprocessing of the data",
            Standing.FIRST,
            case.instructions("BN301"),
            "A line of code, then another measurement; no training.",
        )
    if case.has("BN303", "BN305"):
        yield Suggestion(
            "mend-the-batches",
            "Mend how the batches are made",
            Standing.FIRST if case.has("BN303") else Standing.POSSIBLE,
            case.instructions("BN303", "BN305"),
            "A line of code, then another measurement; no training.",
        )


def _measure_more(case: Case) -> Iterator[Suggestion]:
    if case.has(*DATA_FIRST):
        return
    network = case.audit.network
    if case.scored is None and case.has(*WRONG_ESTIMATES):
        if network is not None and network.task == "other":
            yield _evaluate(case)
        else:
            yield _with_labels(case)
    if case.hidden_by_noise and case.has(*WRONG_ESTIMATES):
        yield Suggestion(
            "measure-in-larger-batches",
            "Measure with larger mini-batches",
            Standing.DECIDING,
            case.most_noise(),
            "One pass with a larger --batch-size: the noise of these costs accuracy that good "
            "statistics would not.",
        )
    if case.may_be_better and case.has(*WRONG_ESTIMATES):
        reason = said(
            "By the statistics of these data the network does better here, within what chance may "
            "be: more labelled samples decide.",
            "network.deployed_compared",
            "network.batch_statistics",
        )
        yield _more(case, Standing.DECIDING, reason)
    elif case.has("BN107"):
        yield _more(case, Standing.ASIDE)


def _more(case: Case, standing: Standing, *reasons: Sentence) -> Suggestion:
    commands = [finding.command for finding in case.audit.findings if finding.code == "BN107"]
    return Suggestion(
        "measure-more",
        "Measure on more samples",
        standing,
        (*reasons, *case.quoted("BN107"), *_samples(case)),
        "One pass over more samples.",
        next(iter(commands), None),
    )


def _with_labels(case: Case) -> Suggestion:
    reason = said(
        "Without labels the outcome is open: on labelled samples, the accuracy as deployed and by "
        "the statistics of mini-batches says whether new statistics help.",
        "data" if case.audit.data is None else "data.labelled",
    )
    return Suggestion(
        "measure-with-labels",
        "Measure on labelled samples",
        Standing.DECIDING,
        (reason, *_samples(case)),
        "Labels for some hundred samples, and one pass over them.",
    )


def _evaluate(case: Case) -> Suggestion:
    reason = said(
        "The outputs are no class scores, so the outcome is open: only your own evaluation, before "
        "and after, says whether new statistics help.",
        "network.task",
    )
    return Suggestion(
        "evaluate-before-and-after",
        "Evaluate the model before and after",
        Standing.DECIDING,
        (reason, *_difference(case)),
        "Your own evaluation, once with each checkpoint.",
    )


def _difference(case: Case) -> tuple[Sentence, ...]:
    network = case.audit.network
    if network is None or network.relative_rms is None:
        return ()
    return (
        said(
            "By the statistics of mini-batches the outputs differ by {share} (relative RMS).",
            share=case.cite("network.relative_rms", percent),
        ),
    )


def _samples(case: Case) -> tuple[Sentence, ...]:
    if case.audit.data is None:
        return ()
    return (said("This Audit is of {n} samples.", n=case.cite("data.samples", count)),)


def _domains(case: Case) -> Iterator[Suggestion]:
    if not case.has("BN302", "BN304"):
        return
    yield Suggestion(
        "domain-statistics",
        "Keep statistics for each domain",
        Standing.POSSIBLE,
        case.quoted("BN302", "BN304"),
        "One set of statistics for each domain or call, and code that puts in the right one; "
        "bnaudit domains measures whether it pays. No training.",
        _domains_command(case),
    )


def _domains_command(case: Case) -> str | None:
    """The data of training against these, where each is named by one option."""
    request = case.audit.request
    if request is None or len(request.data) != 2 or len(request.train_data) != 2:
        return None
    words = ("domains", request.checkpoint, *request.model)
    domains = (f"training={request.train_data[1]}", f"these={request.data[1]}")
    options = [word for domain in domains for word in ("--domain", domain)]
    return shlex.join(("bnaudit", *words, *options, *request.how))
