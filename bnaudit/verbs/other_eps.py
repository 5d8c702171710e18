"""Would the network do better with the other usual eps? The usual error of porting."""

from __future__ import annotations

from collections.abc import Sequence

from bnaudit.engine.batches import Batch, labels_of
from bnaudit.engine.conditions import Subject
from bnaudit.engine.outputs import OutputComparison, Task
from bnaudit.engine.state import other_eps
from bnaudit.findings.rules.configuration import PYTORCH_EPS, TENSORFLOW_EPS, eps_change
from bnaudit.results import OtherEps
from bnaudit.results.state import State

TRIED_FROM = 0.05
"""Relative change of some layer's output between the two eps below which nothing is tried."""


def try_other_eps(
    subject: Subject, state: State, batches: Sequence[Batch], task: Task
) -> OtherEps | None:
    """The accuracy on labelled batches with the layers' own eps and with the other usual one.

    Inside `conditions.entered(model)`. None where eps hardly matters, or without class scores and
    labels.
    """
    layers = [
        layer
        for layer in subject.layers
        if layer.role == "estimated" and layer.eps_source == "module" and layer.eps is not None
    ]
    if not layers or all(eps_change(layer) < TRIED_FROM for layer in state.layers):
        return None
    eps = TENSORFLOW_EPS if (layers[0].eps or 0.0) < 1e-4 else PYTORCH_EPS
    comparison = OutputComparison(task, None)
    for batch in batches:
        labels = labels_of(subject.conditions.moved(batch))
        if labels is None:
            return None
        deployed = subject.forward(batch)
        with other_eps(layers, eps):
            comparison.pair(deployed, subject.forward(batch), labels, batch.size)
    figures = comparison.result(())
    own, other = figures.deployed_compared, figures.batch_statistics
    only_own, only_other = figures.only_deployed_correct, figures.only_batch_correct
    if own is None or other is None or only_own is None or only_other is None:
        return None
    return OtherEps(eps, figures.compared, own.accuracy, other.accuracy, only_own, only_other)
