"""Calibration data that are held once and recalibrated on again and again: what sweeps share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bnaudit.engine.batches import Batch
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Calibration, Rule, Statistics
from bnaudit.engine.train_mode import MovingAverages, ema_of_each
from bnaudit.errors import InputError, ModelError
from bnaudit.results import DataInfo
from bnaudit.verbs.calibration import Batches, Choice, Plan, calibrate
from bnaudit.verbs.exact_statistics import Planned, plan_exact
from bnaudit.verbs.mixing import MixingRule, own_statistics
from bnaudit.verbs.sources import Source
from bnaudit.verbs.workbench import Workbench


@dataclass(frozen=True)
class CalibrationPool:
    """The data, how to recalibrate on them, and the layers that change.

    Made, and used, inside `conditions.entered(model)`. Nothing is written into the model.
    """

    bench: Workbench
    planned: Planned
    batches: list[Batch]
    own: dict[BNLayer, Statistics]

    @property
    def source(self) -> Source:
        """The data, and how they are called."""
        return self.planned.source

    @property
    def plan(self) -> Plan:
        """By which method, on which data."""
        return self.planned.plan

    @property
    def layers(self) -> list[BNLayer]:
        """Those that change."""
        return self.planned.layers

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(batch.size for batch in self.batches)

    @property
    def hashes(self) -> set[bytes]:
        """Of the contents of the samples."""
        return self.plan.batches.hashes

    @property
    def info(self) -> DataInfo:
        """What was read."""
        return self.planned.info

    def exact(
        self, batches: Sequence[Batch] | None = None, prior: float = 0.0
    ) -> dict[BNLayer, Statistics]:
        """What `recalibrate` would give the layers on these batches; default: on all.

        `prior`: mixed in at every layer before the layers behind it see what comes of it, as
        `recalibrate --prior` does (Schneider et al. 2020).
        """
        used = self.batches if batches is None else list(batches)
        samples = sum(batch.size for batch in used)
        groups = self.plan.batches.groups if batches is None else 1
        plan = replace(self.plan, batches=Batches(used, groups, samples))
        plan.batches.read = len(used)  # they are hashed already
        rule = MixingRule(self.own, samples / (prior + samples), None, {})
        found = calibrate(
            self.bench.subject, self.layers, plan, rule, Choice(plan.method), _no_progress
        )
        return found.statistics

    def moving_averages(self, momenta: Sequence[float]) -> MovingAverages:
        """The framework's moving average over all batches, from the estimates on, for each."""
        rule: Rule = MixingRule(self.own, 1.0, None, {})
        subject, groups = self.bench.subject, self.plan.batches.groups
        work = Calibration(
            subject.model, self.layers, self.batches, groups, subject.conditions, rule
        )
        return ema_of_each(work, momenta)


def calibration_pool(
    bench: Workbench, source: Source, say: Callable[[str], None]
) -> CalibrationPool:
    """Read the data once. Raises `InputError` for too few, `ModelError` where no layer is reached.

    As many samples as fit into memory at once, as `recalibrate` takes them.
    """
    planned = plan_exact(bench.subject, source, say)
    batches = list(planned.plan.batches)
    if sum(batch.size for batch in batches) < 2:
        raise InputError(f"{source.name}: a single calibration sample has no statistics; give more")
    if not planned.layers:
        raise ModelError("no layer can be recalibrated: all are frozen, or of unknown kind")
    return CalibrationPool(bench, planned, batches, own_statistics(bench.subject.layers))


def _no_progress(done: int) -> None:
    pass
