"""Figures of one network, all of them by bnaudit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from train import accuracy

import bnaudit
from bnaudit.results import Audit, LayerAudit
from reproduce.data import Images

PASS = 500
"""Samples a forward: nothing depends on it, mini-batches are cut out of it."""


@dataclass(frozen=True)
class Quality:
    """Accuracy (0 to 1) and mean cross-entropy (nats)."""

    accuracy: float
    loss: float


def measured(network: nn.Module, data: Images, mini_batch: int | None = None) -> Audit:
    """The Audit without own and inherited shifts; mini-batches only where a size is given."""
    return bnaudit.measure(
        network,
        data.data(),
        batch_size=PASS,
        train_batch_size=mini_batch,
        attribute="none",
    )


def attributed(network: nn.Module, data: Images) -> Audit:
    """The Audit with own and inherited shifts, over all samples."""
    return bnaudit.measure(network, data.data(), batch_size=PASS, attribute="all")


def deployed(audit: Audit) -> Quality:
    """What the network does with its estimates, on all samples."""
    assert audit.network is not None
    assert audit.network.deployed is not None
    return _quality(audit.network.deployed.accuracy, audit.network.deployed.loss)


def inference(audit: Audit) -> Quality:
    """What the network does with its estimates, on the samples that fill whole mini-batches."""
    assert audit.network is not None
    score = audit.network.deployed_compared
    assert score is not None
    return _quality(score.accuracy, score.loss)


def train_mode(audit: Audit) -> Quality:
    """What the network does with mini-batch statistics, on the same samples as `inference`."""
    assert audit.network is not None
    score = audit.network.batch_statistics
    assert score is not None
    return _quality(score.accuracy, score.loss)


def accuracy_of(network: nn.Module, data: Images) -> float:
    """Accuracy at inference, also of a network without BatchNorm, which has nothing to audit."""
    audit = measured(network, data)
    if audit.network is None:
        return accuracy(network, data.images, data.labels)
    return deployed(audit).accuracy


def plain_shift(layer: LayerAudit) -> float:
    """The ESM as computed. Where the reference is the whole population there is no noise in it."""
    assert layer.total_shift is not None
    return layer.total_shift.plain


def shift_of(audit: Audit, names: Sequence[str] | None = None) -> float:
    """The root mean square over layers of the (debiased) ESM; `names`: of these layers."""
    layers = [x for x in audit.audited if names is None or x.name in names]
    return root_mean_square([x.total_shift.value for x in layers if x.total_shift is not None])


def root_mean_square(values: Sequence[float]) -> float:
    """√ of the mean square."""
    return math.sqrt(sum(value * value for value in values) / len(values))


def _quality(accuracy: float, loss: float | None) -> Quality:
    return Quality(accuracy, math.nan if loss is None else loss)
