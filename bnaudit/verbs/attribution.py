"""Own and inherited shift: what a layer's estimates get wrong, and what comes from upstream."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
from scipy import stats as scipy_stats
from torch import Tensor, nn

from bnaudit.engine.batches import Batch
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.collect import Collector
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.outputs import Task
from bnaudit.engine.population import Population
from bnaudit.engine.state import intercepted
from bnaudit.engine.trial import Trial, try_out
from bnaudit.errors import ModelError, NonFiniteError
from bnaudit.results import (
    Attribution,
    Audit,
    Estimate,
    InitialShare,
    LayerAudit,
    VarianceRatio,
)
from bnaudit.stats.mixture import combined, left_over, share_of
from bnaudit.stats.moments import merge, pool
from bnaudit.stats.shift import inherited_shift, squared_shift
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.calibration import first_samples
from bnaudit.verbs.calibration_memory import fitting_samples, memory_estimate
from bnaudit.verbs.few_layers import Search, corrected_condition, groups_of
from bnaudit.verbs.figures import shift_estimates, variance_ratio

DEFAULT_SAMPLES = 512
"""How many samples tell own from inherited shift unless the user says otherwise."""


ROUNDING = 1e-7
"""An inherited shift below this is the rounding of the same sums in another order."""


@dataclass(frozen=True)
class OwnAndInherited:
    """A layer's total shift on one set of samples, and its parts."""

    total: Estimate
    own: Estimate
    own_output: Estimate | None
    inherited: float
    variance_ratio: VarianceRatio | None
    initial_share: InitialShare | None


def own_and_inherited(record: LayerRecord, corrected: Population) -> OwnAndInherited | None:
    """From what a layer saw deployed (`record`) and in the corrected condition, same samples.

    The own shift's interval is conditional on the statistics upstream, which come from these same
    samples. None where no channel is defined.
    """
    eps, gamma = record.layer.eps, record.layer.gamma()
    groups = corrected.groups.select(corrected.groups.count > 0)
    if eps is None or not len(groups.count) or not record.sites:
        return None
    seen = reduce(merge, [site.groups for site in record.sites])
    seen = seen.select(seen.count > 0)
    deployed, expected = pool(seen), pool(groups)
    mean, var = deployed.mean[0], deployed.var[0]
    if bool(squared_shift(mean, var, *record.estimated, eps).total.isnan().all()):
        return None
    total, _, _ = shift_estimates(seen, record.estimated, eps, gamma)
    own, own_output, _ = shift_estimates(groups, record.estimated, eps, gamma)
    inherited = inherited_shift(
        (mean, var), (expected.mean[0], expected.var[0]), record.estimated[1], eps
    )
    inherited = inherited if inherited > ROUNDING else 0.0
    ratio = variance_ratio(record.estimated[1], expected.var[0], eps)
    initial = initial_share(record.estimated, (expected.mean[0], expected.var[0]), eps)
    return OwnAndInherited(total, own, own_output, inherited, ratio, initial)


def initial_share(
    estimated: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], eps: float
) -> InitialShare | None:
    """How near the estimates are to a mixture of the expected and the initial statistics.

    An average that has not warmed up is one, with (1 − momentum)^n of the initial values. None
    where nothing is off.
    """
    defined = (estimated[0] + estimated[1]).isfinite() & (estimated[1] + eps > 0)
    child, parent = (
        (mean[defined].numpy(), var[defined].numpy()) for mean, var in (estimated, expected)
    )
    initial = np.zeros_like(parent[0]), np.ones_like(parent[1])
    distance = left_over(child, parent, eps) if defined.any() else 0.0
    share = share_of(child, parent, initial, eps) if distance > 0 else math.nan
    if not math.isfinite(share):
        return None
    rest = left_over(child, combined((1 - share, share), (parent, initial)), eps)
    return InitialShare(share, rest / distance)


def attribute(
    audit: Audit,
    model: nn.Module,
    layers: list[BNLayer],
    batches: list[Batch],
    conditions: Conditions,
    task: Task,
    bar: Bar,
) -> Audit:
    """The Audit with own and inherited shift of every layer, and the layers that matter.

    `batches`: what of the data is used, dealt to groups; of several ranks each has its own.

    Where the model cannot run in lockstep, or memory does not allow it, a note says so.
    """
    found = _accumulation([x.total_shift.value for x in audit.audited if x.total_shift])
    try:
        with conditions.entered(model), conditions.ranks.as_one():
            return _Work(model, layers, batches, conditions, task).run(audit, found, bar)
    except (ModelError, NonFiniteError) as error:
        said = conditions.ranks.from_first(partial(str, error))  # a rank's own names no rank
        note = f"own and inherited shift are not known: {said}"
        return replace(audit, attribution=replace(found, note=note))


def _accumulation(shifts: list[float]) -> Attribution:
    """Rank correlation of the total shift with depth; its root mean square over the thirds."""
    if len(shifts) < 3:
        return Attribution(0)
    third = len(shifts) // 3
    first, last = (
        math.sqrt(sum(s * s for s in part) / third) for part in (shifts[:third], shifts[-third:])
    )
    spearman = None
    if len(set(shifts)) > 1:
        spearman = float(scipy_stats.spearmanr(range(len(shifts)), shifts).statistic)
    return Attribution(0, spearman=spearman, first_third=first, last_third=last)


@dataclass
class _Work:
    """The passes over the kept samples. Inside `conditions.entered`."""

    model: nn.Module
    layers: list[BNLayer]
    batches: list[Batch]
    conditions: Conditions
    task: Task

    def run(self, audit: Audit, found: Attribution, bar: Bar) -> Audit:
        """Both parts of every layer, then the search."""
        ranks = self.conditions.ranks
        first = ranks.first_of(next(iter(self.batches), None))
        assert first is not None  # of no samples nothing would be audited
        trial = try_out(self.model, self.layers, first, self.conditions)
        trial = ranks.from_first(lambda: trial)
        note = self._fit(trial, first)
        targets = [x for x in self.layers if x.role == "estimated" and x.verified]
        with bar("own and inherited shift", len(targets), "layers") as advance:
            records = self._deployed()
            corrected = corrected_condition(
                self.model, targets, trial, self.batches, self.conditions, advance
            )
        parts = {}
        for layer, population in corrected.populations.items():
            record = records.get(layer.name)
            shift = own_and_inherited(record, population) if record is not None else None
            if shift is not None:
                parts[layer.name] = shift
        described = tuple(_with_parts(layer, parts.get(layer.name)) for layer in audit.layers)
        found = replace(found, samples=self._samples, note=note)
        ranked = [layer for layer in targets if layer.name in parts]
        ranked.sort(key=lambda layer: -_own_output(parts[layer.name]))
        by_name = {layer.name: layer for layer in ranked}
        ranked = [by_name[name] for name in ranks.from_first(lambda: list(by_name))]
        if any(_is_certain(shift) for shift in parts.values()):
            search = Search(self.model, trial, self.batches, self.conditions, self.task)
            with bar("how few layers matter", None, "layers") as advance:
                found = search.run(ranked, found, advance)
        else:
            found = replace(found, search_note="no layer's own shift is above zero for certain")
        return replace(audit, layers=described, attribution=found)

    @property
    def _samples(self) -> int:
        return sum(self._shares())

    def _shares(self) -> list[int]:
        return self.conditions.ranks.gather(sum(batch.size for batch in self.batches))

    def _fit(self, trial: Trial, first: Batch) -> str | None:
        """Leave out what memory does not allow, and say so."""
        shares, ranks = self._shares(), self.conditions.ranks
        samples = sum(shares)
        memory = memory_estimate(trial, first, max(shares), self.conditions, None)
        fits = ranks.gather((memory.needed <= memory.limit, fitting_samples(memory, trial, first)))
        if all(fit for fit, _ in fits):
            return None
        fewest = min(fitting for _, fitting in fits)
        self.batches = first_samples(self.batches, fewest * ranks.size, ranks)
        return f"memory allows {self._samples:,} of {samples:,} samples for own and inherited shift"

    def _deployed(self) -> dict[str, LayerRecord]:
        ranks = self.conditions.ranks
        collector = Collector(groups_of(self.batches, ranks), None)
        audited = [layer for layer in self.layers if layer.role == "estimated"]
        for batch in self.batches:
            collector.start(batch)
            with intercepted(audited, collector):
                self.conditions.run(self.model, self.conditions.moved(batch), batch)
            collector.end()
        collector.finish(audited, ranks)
        return collector.records


def _own_output(shift: OwnAndInherited) -> float:
    return shift.own_output.value if shift.own_output is not None else 0.0


def _is_certain(shift: OwnAndInherited) -> bool:
    return shift.own_output is not None and bool(shift.own_output.low)


def _with_parts(layer: LayerAudit, shift: OwnAndInherited | None) -> LayerAudit:
    if shift is None:
        return layer
    return replace(
        layer,
        own_shift=shift.own,
        own_output_shift=shift.own_output,
        inherited_shift=shift.inherited,
        attributed_shift=shift.total.value,
        own_variance_ratio=shift.variance_ratio,
        initial_share=shift.initial_share,
    )
