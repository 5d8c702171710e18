"""Exact population statistics of a model on data, for what compares with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.errors import ModelError
from bnaudit.results import DataInfo
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.calibration import Choice, calibrate, make_plan
from bnaudit.verbs.measurement import none_reached
from bnaudit.verbs.mixing import MixingRule, own_statistics
from bnaudit.verbs.selection import select_layers
from bnaudit.verbs.sources import Source, data_info


@dataclass(frozen=True)
class ExactStatistics:
    """The statistics (float64, CPU) of every layer that `recalibrate` would change, by layer.

    `samples` were used, of the data `info`; `notes` for the reader; `hashes` of the samples'
    contents.
    """

    statistics: dict[BNLayer, Statistics]
    samples: int
    info: DataInfo
    hashes: frozenset[bytes]
    notes: tuple[str, ...] = ()


def exact_statistics(
    subject: Subject,
    source: Source,
    *,
    choice: Choice | None = None,
    patterns: Sequence[str] = (),
    progress: Bar,
    say: Callable[[str], None] = lambda line: None,
    what: str = "exact statistics",
) -> ExactStatistics:
    """What `recalibrate` would give the layers on these data, by its method `exact`, unverified.

    `choice`: of the method, its prior and memory; layer by layer where memory does not allow it.
    Nothing is written into the model. Inside `conditions.entered(model)`.
    Raises `ModelError` where the forward reaches no layer.
    """
    layers = subject.layers
    choice = choice or Choice()
    plan = make_plan(subject, source.reader, choice, say)
    if not plan.trial.calls:
        raise ModelError(none_reached(layers))
    chosen, _ = select_layers(layers, plan.trial, patterns, frozen=False)
    samples = plan.batches.samples
    rule = MixingRule(own_statistics(layers), samples / (choice.prior + samples), choice.above, {})
    steps = (len(chosen), "layers") if plan.by_layer else (None, "batches")
    with progress(what, *steps) as advance:
        found = calibrate(subject, chosen, plan, rule, choice, advance)
    info = data_info(plan.reader, source.name, samples, source.transform, labelled=plan.labelled)
    notes = (*plan.notes, *found.notes)
    return ExactStatistics(found.statistics, samples, info, frozenset(plan.batches.hashes), notes)
