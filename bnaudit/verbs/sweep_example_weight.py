"""`sweep example-weight`: every example's own moments mixed into the estimates, at several weights.

Summers & Dinneen 2020 (arXiv:1906.03548), "inference example weighing": m_i = a·E[x_i] + (1−a)·m̂,
and v_i from second moments that are mixed alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Unpack

import numpy as np
from torch import nn

from bnaudit.engine.trial import try_out
from bnaudit.engine.variants import Outcomes, Variant, variants_pass, weighed_examples
from bnaudit.errors import InputError
from bnaudit.findings.conclude import conclude
from bnaudit.results.sweep import Conclusion, Sweep, SweepData, SweepPoint
from bnaudit.verbs.best_value import best_value, judging_half
from bnaudit.verbs.change_words import in_points, surely_changes
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE
from bnaudit.verbs.samples import MapReader, Reader
from bnaudit.verbs.scores import accuracy_between, loss_between, scores_of
from bnaudit.verbs.sources import data_info
from bnaudit.verbs.sweep_values import WEIGHTS, checked_values
from bnaudit.verbs.workbench import Data, RunOptions, Workbench, workbench


def sweep_example_weight(
    model: nn.Module,
    data: Data,
    *,
    values: Sequence[float] | None = None,
    **options: Unpack[RunOptions],
) -> Sweep:
    """Accuracy and loss over the weight a of an example's own moments at inference.

    The best weight is chosen on one half of the labelled data (by the loss), and what it gains is
    told on the other half. `bnaudit.nn.convert(model, "example-weighing", alpha=a)` gives the model
    that does it; the statistics, and a state dict, stay as they are. The model is left as it was.

    Args:
        model: as for `bnaudit.measure`.
        data: held-out data; without labels nothing is chosen.
        values: weights from 0 (the estimates alone) to 1 (each example by itself, as Instance
            Norm).
        options: see `RunOptions`.

    Returns:
        The Sweep: `sweep.points`, `sweep.conclusion("best")`, `sweep.to_frame()`.

    Raises:
        InputError: weights outside of 0 to 1, among others as `bnaudit.measure`.
    """
    return sweep_example_weight_with(workbench(model, data, **options), values)


def sweep_example_weight_with(bench: Workbench, values: Sequence[float] | None) -> Sweep:
    """The same for a workbench."""
    weights = checked_values("example-weight", WEIGHTS if values is None else values)
    subject = bench.subject
    reader, notes = _in_usual_batches(bench.data.reader), []
    with subject.conditions.entered(subject.model):
        batches = iter(reader)
        first = next(batches, None)
        if first is None:
            raise InputError("the data gave no batch: nothing to try the weights on")
        try_out(subject.model, subject.layers, first, subject.conditions)  # settles odd layers
        variants = [weighed_examples(subject, weight) for weight in weights]

        what = f"example weights {weights[0]:g} to {weights[-1]:g}"
        with bench.progress(what, reader.total, "samples") as advance:
            estimates, *found = variants_pass(
                subject,
                chain([first], batches),
                [Variant(observed=True), *variants],  # an activation that is not finite is told
                groups=reader.groups,
                task=bench.task,
                progress=advance,
            )
    by_weight = dict(zip(weights, found, strict=True))
    labelled = estimates.labelled
    if not labelled:
        notes.append("no labels: which weight is best cannot be told")
    samples = len(estimates.took_part)
    info = data_info(reader, bench.data.name, samples, bench.data.transform, labelled=labelled)
    best = _best(estimates, by_weight, bench.seed) if labelled else None
    if labelled and best is None:
        notes.append("too few labelled samples to choose a weight and to judge it")
    sweep = Sweep(
        "example-weight",
        **bench.header(),
        data=(SweepData("held-out", info, scores_of(estimates)),),
        points=tuple(
            _point(weight, estimates, one, bench.seed) for weight, one in by_weight.items()
        ),
        conclusions=(best,) if best is not None else (),
        current=0.0,
        notes=tuple(notes),
    )
    return replace(sweep, findings=conclude([sweep], bench.policy))


def _in_usual_batches(reader: Reader) -> Reader:
    """The batches do not matter to the figures: none smaller than usual, where we make them."""
    if not isinstance(reader, MapReader) or reader.batch_size >= DEFAULT_BATCH_SIZE:
        return reader
    return replace(reader, batch_size=DEFAULT_BATCH_SIZE, samples=reader.asked, notes=[])


def _point(weight: float, estimates: Outcomes, found: Outcomes, seed: int) -> SweepPoint:
    return SweepPoint(
        value=weight,
        role="held-out",
        scores=scores_of(found),
        accuracy_change=accuracy_between(estimates, found),
        loss_change=loss_between(estimates, found, seed),
    )


def _best(estimates: Outcomes, by_weight: dict[float, Outcomes], seed: int) -> Conclusion | None:
    """The estimates compete as weight 0, whether it was asked for or not."""
    best = best_value(estimates, {0.0: estimates, **by_weight}, seed)
    if best is None:
        return None
    if best.value == 0:
        sentence = (
            "None of the weights that were tried has a lower loss than the estimates alone, on the "
            "half of the data that chooses: leave it at 0." + _more_accurate(estimates, by_weight)
        )
    else:
        sentence = (
            f"The loss is lowest at example weight {best.value:g}, chosen on one half of the data; "
            f"{best.on_the_other_half('the estimates')}"
        )
    return Conclusion(
        "best",
        sentence,
        best.value,
        tuple(value for value in best.candidates if value in by_weight),
        best.accuracy,
        best.loss,
        significant=best.significant,
    )


def _more_accurate(estimates: Outcomes, by_weight: dict[float, Outcomes]) -> str:
    """A sentence where a weight is surely more accurate, though its loss is higher; or nothing."""
    judging = judging_half(estimates)
    choosing = ~np.isnan(estimates.correct) & ~judging
    weight = max(by_weight, key=lambda one: float(by_weight[one].correct[choosing].mean()))
    gain = accuracy_between(estimates, by_weight[weight], judging)
    if gain is None or gain.difference <= 0 or not surely_changes(gain):
        return ""
    return (
        f" The accuracy is higher at {weight:g}, chosen and judged alike, by {in_points(gain)}; "
        "but the probabilities are worse there."
    )
