"""Exact population statistics of a model on data, for what compares with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.errors import InputError, ModelError
from bnaudit.results import DataInfo
from bnaudit.stats.moments import Moments
from bnaudit.verbs.calibration import Choice, Plan, calibrate, make_plan
from bnaudit.verbs.measurement import none_reached
from bnaudit.verbs.mixing import MixingRule, own_statistics
from bnaudit.verbs.recalibrated_layers import left_alone
from bnaudit.verbs.selection import select_layers
from bnaudit.verbs.sources import Source, data_info
from bnaudit.verbs.weights import dtypes_in_file
from bnaudit.verbs.workbench import Workbench


@dataclass(frozen=True)
class Planned:
    """The data, held; `layers` may change, `kept` has the reason of each other one."""

    source: Source
    plan: Plan
    layers: list[BNLayer]
    kept: dict[BNLayer, str]

    @property
    def info(self) -> DataInfo:
        """What was read."""
        return data_info(
            self.plan.reader,
            self.source.name,
            self.plan.batches.samples,
            self.source.transform,
            labelled=self.plan.labelled,
        )


def plan_exact(subject: Subject, source: Source, say: Callable[[str], None]) -> Planned:
    """What `exact` will run on; layer by layer where memory does not allow it.

    Inside `conditions.entered(model)`. Raises `ModelError` where the forward reaches no layer,
    `InputError` for a single sample.
    """
    plan = make_plan(subject, source.reader, Choice(), say)
    if plan.batches.samples < 2:
        raise InputError(f"{source.name}: a single sample has no statistics; give more")
    if not plan.trial.calls:
        raise ModelError(none_reached(subject.layers))
    layers, kept = select_layers(subject.layers, plan.trial, (), frozen=False)
    return Planned(source, plan, layers, kept)


@dataclass(frozen=True)
class ExactStatistics:
    """The statistics (float64, CPU) of every layer that `recalibrate` would change, by layer.

    `populations`: what each of these layers saw by jackknife group, none empty. `kept`: the layers
    that have no new statistics, and why. `plan`: the data they come from and the method that memory
    allowed; `info` describes the data. `notes` for the reader, who knows which data are meant.
    """

    statistics: dict[BNLayer, Statistics]
    populations: dict[BNLayer, Moments]
    kept: dict[BNLayer, str]
    plan: Plan
    info: DataInfo
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """How many were used."""
        return self.plan.batches.samples

    @property
    def calls(self) -> dict[str, int]:
        """Of each layer in a forward, by its name, in call order."""
        return self.plan.trial.calls


def exact_statistics(
    bench: Workbench,
    source: Source,
    *,
    say: Callable[[str], None],
    what: str = "exact statistics",
) -> ExactStatistics:
    """What `recalibrate` would give the layers on these data, by its method `exact`, unverified.

    Rounded as the checkpoint's file stores them: what is compared is what can be written. Nothing
    is written into the model. Inside `conditions.entered(model)`. Raises `ModelError` where the
    forward reaches no layer.
    """
    subject = bench.subject
    planned = plan_exact(subject, source, say)
    plan, layers = planned.plan, planned.layers
    rule = MixingRule(own_statistics(subject.layers), 1.0, None, dtypes_in_file(bench.weights))
    with bench.progress(what, len(layers), "layers") as advance:
        found = calibrate(subject, layers, plan, rule, Choice(), advance)
    statistics = found.statistics
    groups = {layer: found.populations[layer].groups for layer in statistics}
    return ExactStatistics(
        statistics,
        {layer: one.select(one.count > 0) for layer, one in groups.items()},
        planned.kept | left_alone(layers, found, rule),
        plan,
        planned.info,
        (*plan.notes, *plan.trial.dependence, *found.notes),
    )
