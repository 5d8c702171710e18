"""A recalibration of parts that are in hand: plan, statistics, check, verification, decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from bnaudit.engine.conditions import Conditions, ForwardError, Subject
from bnaudit.engine.layers import BNLayer, find_layers
from bnaudit.engine.outputs import Task
from bnaudit.engine.paired import Paired, paired_pass
from bnaudit.engine.population import Result, Statistics
from bnaudit.engine.ranks import ALONE
from bnaudit.engine.stopwatch import Stopwatch, run_time, running
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import InputError, ModelError, one_line
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.decision import decide
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.findings.rules.preprocessing import CODE, explained
from bnaudit.results import Decision, ModelInfo, Recalibrated
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.calibration import Choice, Plan, calibrate, in_lockstep_as_alone, make_plan
from bnaudit.verbs.circumstances import about
from bnaudit.verbs.in_step import in_step, to_first_rank
from bnaudit.verbs.measurement import none_reached
from bnaudit.verbs.mixing import MixingRule, own_statistics
from bnaudit.verbs.preprocessing import MOST_SAMPLES, try_preprocessing
from bnaudit.verbs.recalibrated_layers import LayerDescriber, largest, left_alone
from bnaudit.verbs.selection import check_patterns, select_layers
from bnaudit.verbs.sources import Source, data_info
from bnaudit.verbs.verification import verify_with

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False)
class Recalibration:
    """A recalibrated model: what was found, the new statistics, and the way back.

    `report` holds every figure and the decision. `statistics`: (mean, biased variance) by layer
    name, float64, (C,) each. `applied`: whether the model normalises by them now.
    """

    report: Recalibrated
    statistics: dict[str, Statistics]
    applied: bool = False
    _layers: dict[str, BNLayer] = field(default_factory=dict, repr=False)
    _before: dict[BNLayer, Statistics] = field(default_factory=dict, repr=False)
    _others: dict[BNLayer, Statistics] = field(default_factory=dict, repr=False)

    @property
    def decision(self) -> Decision:
        """Whether the statistics are to be used, and why."""
        return self.report.decision

    def to_frame(self) -> pd.DataFrame:
        """One row a layer."""
        return self.report.to_frame()

    def apply(self, others: Mapping[BNLayer, Statistics] | None = None) -> None:
        """Write the new statistics into the model's own buffers.

        `others`: what layers that did not change get, on a rank whose own are not the first one's;
        they get it again without being told when this is called after `revert`.
        """
        if self.applied:
            return
        self._others = dict(others if others is not None else self._others)
        statistics = dict(self._others)
        statistics |= {self._layers[name]: pair for name, pair in self.statistics.items()}
        self._before = {
            layer: (layer.estimated[0].clone(), layer.estimated[1].clone()) for layer in statistics
        }
        _write(statistics)
        self.applied = True

    def revert(self) -> None:
        """Write back, bit for bit, what `apply` replaced."""
        if self.applied:
            _write(self._before)
            self.applied = False

    def __repr__(self) -> str:
        return repr(self.report)


def _write(statistics: Mapping[BNLayer, Statistics]) -> None:
    with torch.no_grad():
        for layer, values in statistics.items():
            for buffer, new in zip(layer.estimated, values, strict=True):
                buffer.copy_(new)


@dataclass(frozen=True)
class Limits:
    """What may change and what is accepted. `max_loss`: 0 to 1."""

    patterns: tuple[str, ...] = ()
    include_frozen: bool = False
    max_loss: float = 0.005
    force: bool = False
    policy: Policy = DEFAULT


def recalibrate_with(
    model: nn.Module,
    calibration: Source,
    verification: Source | None,
    conditions: Conditions,
    choice: Choice,
    limits: Limits,
    *,
    model_info: ModelInfo,
    task: Task,
    progress: Bar,
    say: Callable[[str], None],
    stored: Mapping[str, torch.dtype] | None = None,
) -> Recalibration:
    """The same for parts that are already in hand; nothing is written into the model.

    `stored`: the dtype that a layer's statistics have in its file, by the layer's name.
    """
    inner = unwrap(model)
    layers = find_layers(inner)
    if not layers:
        raise ModelError("the model has no BatchNorm layer: there is nothing to recalibrate")
    check_patterns(layers, limits.patterns)
    subject, ranks = Subject(inner, layers, conditions), conditions.ranks
    stopwatch = Stopwatch.on(conditions.device)
    with running(stopwatch), conditions.entered(inner), in_step(subject), ranks.as_one():
        plan = make_plan(subject, calibration.reader, choice, say)
        if not plan.trial.calls and any(layer.role == "estimated" for layer in layers):
            raise ModelError(none_reached(layers))
        warnings = _preprocessed_wrongly(subject, plan, limits)
        chosen, kept = select_layers(
            layers, plan.trial, limits.patterns, frozen=limits.include_frozen
        )
        own = own_statistics(layers)
        samples = plan.batches.samples
        rule = MixingRule(own, samples / (choice.prior + samples), choice.above, stored or {})
        plan, found, calibrated = _calibrate(subject, chosen, plan, rule, choice, progress, say)
        kept |= left_alone(chosen, found, rule)
        verified = None
        if verification is not None and found.statistics:
            with progress("verifying", verification.reader.total, "samples") as advance:
                verified = verify_with(
                    subject,
                    verification,
                    found.statistics,
                    set().union(*ranks.gather(plan.batches.hashes)),
                    max_loss=limits.max_loss,
                    task=task,
                    progress=advance,
                )
    describe = LayerDescriber(layers, plan, found, calibrated, verified)
    described = tuple(describe(layer, kept.get(layer)) for layer in layers)
    changed = [layer for layer in described if layer.changed]
    report = Recalibrated(
        **about(inner, conditions),
        model=replace(
            model_info,
            parameters=sum(p.numel() for p in inner.parameters()),
            bn_layers=dict(Counter(layer.kind for layer in layers)),
        ),
        data=data_info(
            plan.reader,
            calibration.name,
            samples,
            calibration.transform,
            labelled=plan.labelled,
        ),
        asked=choice.method,
        method=plan.method,
        layers=described,
        decision=decide(
            verified.verification if verified else None,
            changed_layers=len(changed),
            forced=limits.force,
        ),
        prior=choice.prior,
        memory=plan.memory,
        batch_dependence=plan.trial.dependence,
        verification=verified.verification if verified else None,
        notes=(*warnings, *plan.notes, *found.notes),
        **largest(changed, samples),
        run_time=run_time(
            ranks.gather(stopwatch.spent()),
            samples + (verified.verification.data.samples if verified else 0),
        ),
    )
    statistics = {layer.name: found.statistics[layer] for layer in found.statistics}
    return Recalibration(
        report, statistics, _layers={layer.name: layer for layer in found.statistics}
    )


def _preprocessed_wrongly(subject: Subject, plan: Plan, limits: Limits) -> tuple[str, ...]:
    """What is wrong with the calibration data's preprocessing, as a note, if the user insists.

    Raises `InputError` otherwise: new statistics would fit the mistake. Nothing is looked at where
    the policy does not want to know. Inside `conditions.entered`.
    """
    rule = find_rule(CODE)
    if not limits.policy.wants(rule):
        return ()
    looked_at = to_first_rank(plan.batches, MOST_SAMPLES, subject.conditions.ranks)
    alone = replace(subject, conditions=replace(subject.conditions, ranks=ALONE))
    tried = subject.conditions.ranks.from_first(lambda: try_preprocessing(alone, looked_at))
    wrong = explained(tried, limits.policy.limits(rule)) if tried is not None else None
    if wrong is None:
        return ()
    if limits.force:
        return (f"{wrong.sentence} Recalibrated in spite of this, as asked (--force).",)
    said = wrong.sentence[:1].lower() + wrong.sentence[1:]
    raise InputError(
        f"{said} {wrong.remedy} Where the data are right, the first layer's own statistics are off "
        "by as much: --force (force=True) recalibrates all the same; --ignore "
        f"{rule.code} does not look"
    )


def _calibrate(
    subject: Subject,
    chosen: list[BNLayer],
    plan: Plan,
    rule: MixingRule,
    choice: Choice,
    progress: Bar,
    say: Callable[[str], None],
) -> tuple[Plan, Result, Paired]:
    """Run the plan, and see the calibration data under the old and the new statistics.

    What single forwards do not bear out, or do not even allow, is done again layer by layer: the
    plan that comes back is the one that held.
    """

    def attempt(plan: Plan) -> tuple[Plan, Result, Paired]:
        rule.forget()
        with ranks.as_one():
            with progress(f"recalibrating ({plan.method})", *_steps(plan, chosen)) as advance:
                advance = advance if plan.by_layer else ranks.shared(advance)
                found = calibrate(subject, chosen, plan, rule, choice, advance)
            return plan, found, _check(subject, plan, found, progress)

    ranks = subject.conditions.ranks

    try:
        made = attempt(plan)
        if _settled(*made):
            return made
        fault = "what layers see together is not what they see alone"
    except ForwardError as error:
        if plan.method != "exact":
            raise
        fault = ranks.from_first(partial(one_line, error.__cause__ or error))
    note = (
        f"the forwards influence each other when they run together ({fault}): the model, or a "
        "hook, keeps state of its own during a forward; so layer by layer instead"
    )
    say(note)
    return attempt(replace(plan, method="sequential", notes=(*plan.notes, note)))


def _settled(plan: Plan, found: Result, calibrated: Paired) -> bool:
    """Whether single forwards bear out what `exact` found; what depends on chance need not."""
    if plan.method != "exact" or plan.trial.stochastic:
        return True
    return in_lockstep_as_alone(found, calibrated.after)


def _check(subject: Subject, plan: Plan, found: Result, progress: Bar) -> Paired:
    """The calibration data under the old and the new statistics, one batch after another."""
    data, shared = plan.batches, subject.conditions.ranks.shared
    with progress("checking on the calibration data", data.samples, "samples") as advance:
        return paired_pass(
            subject, data, data.groups, found.statistics, task="other", progress=shared(advance)
        )


def _steps(plan: Plan, chosen: list[BNLayer]) -> tuple[int | None, str]:
    """How much there is to do, in which unit."""
    return (len(chosen), "layers") if plan.by_layer else (None, "batches")
