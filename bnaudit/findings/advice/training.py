"""Remedies that need training, or another form of the model at inference."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from bnaudit.findings.advice.case import Case, count, percent, said
from bnaudit.findings.advice.suggestion import Standing, Suggestion
from bnaudit.findings.phrases import number
from bnaudit.results.advice import Sentence

SMALL_BATCHES = ("BN011", "BN104", "BN202")

OVERFIT = 0.02
"""Accuracy, 0 to 1, that the training data have before the others, for Ghost BN to be named."""


def training(case: Case) -> Iterator[Suggestion]:
    """Larger or smaller normalisation batches, norms without a batch, frozen statistics."""
    yield from _larger_batches(case)
    yield from _frozen(case)
    yield from _batch_free(case)
    yield from _example_weighing(case)
    yield from _ghost(case)
    yield from _faster_average(case)


def _larger_batches(case: Case) -> Iterator[Suggestion]:
    if case.has(*SMALL_BATCHES):
        yield Suggestion(
            "larger-normalisation-batches",
            "Normalise larger batches in training (SyncBatchNorm)",
            Standing.TRAINING,
            (*_noise(case), *case.quoted(*SMALL_BATCHES)),
            "Another training, with more memory a device or with communication between devices "
            "(torch's SyncBatchNorm, bnaudit.nn.convert(model, 'sync')).",
        )


def _noise(case: Case) -> tuple[Sentence, ...]:
    said_so = case.audit.train_batch_size
    if said_so is None:
        return (
            *case.most_noise(),
            said(
                "This matters where the model is trained with batches so small, which "
                "--train-batch-size would say.",
                "train_batch_size",
            ),
        )
    size = said(
        "The model is trained with batches of {size}.",
        size=case.cite("train_batch_size", count),
    )
    return (size, *case.most_noise())


def _frozen(case: Case) -> Iterator[Suggestion]:
    if not case.has("BN202"):
        return
    yield Suggestion(
        "frozen-statistics",
        "Finish training with frozen statistics (FrozenBN)",
        Standing.TRAINING,
        (*_agreement(case), *_noise(case)),
        "A few epochs of fine-tuning on the training data (bnaudit.nn.convert(model, 'frozen')). "
        "Afterwards a large shift is to be expected, and the statistics are to be left alone.",
    )


def _agreement(case: Case) -> tuple[Sentence, ...]:
    network = case.audit.network
    if network is None or network.agreement is None:
        return ()
    return (
        said(
            "Estimates and mini-batches of {size} give the same class to {share} of {n} samples: "
            "training sees another network than inference.",
            size=case.cite("network.batch_size", count),
            share=case.cite("network.agreement", percent),
            n=case.cite("network.compared", count),
        ),
    )


def _batch_free(case: Case) -> Iterator[Suggestion]:
    evidence: list[Sentence] = []
    if case.has("BN102") and case.outcome in ("better", "open"):
        evidence += _by_depth(case)
    if case.has("BN202") and case.audit.train_batch_size is not None:
        evidence += _noise(case)
    evidence += case.quoted("BN006", "BN304")
    if evidence:
        yield Suggestion(
            "batch-free-norm",
            "Replace BatchNorm, or one layer of each block, by a batch-free norm (XBN)",
            Standing.TRAINING,
            tuple(evidence),
            "Another training or a long fine-tuning (bnaudit.nn.convert(model, 'xbn')): the new "
            "norm computes something else. Recalibration mends a shift for less.",
        )


def _by_depth(case: Case) -> tuple[Sentence, ...]:
    found = case.audit.attribution
    if found is None or found.first_third is None or found.last_third is None:
        return case.quoted("BN102")
    return (
        said(
            "The shift grows with depth: {first} over the first third of the layers, {last} over "
            "the last (root mean square).",
            first=case.cite("attribution.first_third", number),
            last=case.cite("attribution.last_third", number),
        ),
    )


def _example_weighing(case: Case) -> Iterator[Suggestion]:
    if not case.has("BN202"):
        return
    yield Suggestion(
        "example-weighing",
        "Count each example into its statistics at inference",
        Standing.POSSIBLE,
        _noise(case),
        "No training, but labelled samples to find the weight with, and a mean and a variance of "
        "each example in every layer at inference.",
        _sweep(case),
    )


def _sweep(case: Case) -> str | None:
    request = case.audit.request
    if request is None:
        return None
    what = (request.checkpoint, *request.model, *request.data, *request.how)
    return shlex.join(("bnaudit", "sweep", "example-weight", *what))


def _ghost(case: Case) -> Iterator[Suggestion]:
    trained_on, network = case.audit.trained_on, case.audit.network
    if trained_on is None or trained_on.score is None or network is None:
        return
    if network.deployed is None or case.has("BN302", "BN301", *SMALL_BATCHES):
        return
    if trained_on.score.accuracy - network.deployed.accuracy < OVERFIT:
        return
    yield Suggestion(
        "ghost-batches",
        "Normalise in ghost batches in training, against overfitting",
        Standing.TRAINING,
        (
            said(
                "Top-1 accuracy is {trained} on the training data and {here} on these.",
                trained=case.cite("trained_on.score.accuracy", percent),
                here=case.cite("network.deployed.accuracy", percent),
            ),
            *case.most_noise(),
        ),
        "Another training (bnaudit.nn.convert(model, 'ghost')); the noise of smaller batches "
        "regularises, which is not certain to help.",
    )


def _faster_average(case: Case) -> Iterator[Suggestion]:
    if not case.has("BN007", "BN109"):
        return
    yield Suggestion(
        "faster-average",
        "In the next training, average faster or estimate at the end",
        Standing.TRAINING,
        case.quoted("BN007", "BN109"),
        "A larger momentum of the BatchNorm layers, or a recalibration at the end of training.",
    )
