"""How accuracy, loss and disagreement differ between two Audits of any samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from bnaudit.results import Audit, Marks, NetworkAudit
from bnaudit.results.changes import Figure
from bnaudit.stats.independent import Counted, Mean, mean_difference, share_difference
from bnaudit.stats.paired import Paired, accuracy_change


class AtLevel(Protocol):
    """A difference with its limits at any level."""

    def __call__(self, *, level: float) -> Paired:
        """after − before, two-sided at `level`."""


class NetworkDifference(NamedTuple):
    """A figure that both sides have, and how it differs."""

    figure: Figure
    difference: AtLevel


def network_differences(
    before: Audit, after: Audit, *, paired: bool
) -> Iterator[NetworkDifference]:
    """The figures of the network that both Audits have.

    Accuracy and disagreement (one less the agreement) have Tango's interval where each sample's
    outcome is known on both sides, and Newcombe's for independent samples else. Audits hold no
    loss of each sample, so that it is taken for independent always, which is too wide where the
    samples are the same. Disagreement is compared at the same mini-batch size alone.
    """
    old, new = before.network, after.network
    if old is None or new is None:
        return
    right = _right(old), _right(new)
    if right[0] is not None and right[1] is not None:
        marks = (old.correct, new.correct) if paired else (None, None)
        yield NetworkDifference("accuracy", _share(right[0], right[1], *marks))
    losses = _loss(old), _loss(new)
    if losses[0] is not None and losses[1] is not None:
        yield NetworkDifference("loss", partial(mean_difference, losses[0], losses[1]))
    agreed = _agreed(old), _agreed(new)
    if agreed[0] is not None and agreed[1] is not None and same_mini_batches(before, after):
        marks = (old.agreed, new.agreed) if paired else (None, None)
        agreement = _share(agreed[0], agreed[1], *marks)
        yield NetworkDifference("disagreement", partial(_complement, agreement))


def same_mini_batches(before: Audit, after: Audit) -> bool:
    """Whether the mini-batches that are compared with the estimates are of one size."""
    return before.batch_statistics_size == after.batch_statistics_size


def _right(network: NetworkAudit) -> Counted | None:
    score = network.deployed
    if score is None or score.samples < 1:
        return None
    return Counted(round(score.accuracy * score.samples), score.samples)


def _loss(network: NetworkAudit) -> Mean | None:
    score = network.deployed
    if score is None or score.loss is None:
        return None
    return Mean(score.loss, score.loss_standard_error)


def _agreed(network: NetworkAudit) -> Counted | None:
    if network.agreement is None or network.compared < 1:
        return None
    return Counted(round(network.agreement * network.compared), network.compared)


def _share(before: Counted, after: Counted, old: Marks | None, new: Marks | None) -> AtLevel:
    """The difference of two shares, paired where marks of the same samples are given."""
    if old is None or new is None or not old.count == new.count == before.n == after.n:
        return partial(share_difference, before, after)
    a, b = old.array(), new.array()
    only_before, only_after, both = (int(np.sum(x)) for x in (a & ~b, b & ~a, a & b))
    return partial(accuracy_change, only_before, only_after, both, old.count)


def _complement(of: AtLevel, *, level: float) -> Paired:
    """The difference of one less each figure."""
    found = of(level=level)
    low = None if found.high is None else 0.0 - found.high
    high = None if found.low is None else 0.0 - found.low
    return Paired(1 - found.before, 1 - found.after, 0.0 - found.difference, low, high)
