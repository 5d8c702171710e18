"""`recalibrate`: new population statistics for a model, proven on data that took no part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions, ForwardError
from bnaudit.engine.layers import BNLayer, find_layers
from bnaudit.engine.memory import parse_size
from bnaudit.engine.paired import Paired, paired_pass
from bnaudit.engine.population import Result, Statistics
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import InputError, ModelError, one_line
from bnaudit.findings.decision import decide
from bnaudit.results import Decision, Method, ModelInfo, Recalibrated
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.calibration import (
    Choice,
    MixingRule,
    Plan,
    calibrate,
    in_lockstep_as_alone,
    make_plan,
    own_statistics,
)
from bnaudit.verbs.devices import device_of, usable_device
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE, about, autocast, none_reached
from bnaudit.verbs.recalibrated_layers import LayerDescriber, largest, left_alone
from bnaudit.verbs.samples import Reader, check_positive, data_info, reader_of, split_reader
from bnaudit.verbs.selection import check_patterns, select_layers
from bnaudit.verbs.verification import verify_with

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_SAMPLES = 1000
"""How many calibration samples the command line draws unless told otherwise."""


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
    _before: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def decision(self) -> Decision:
        """Whether the statistics are to be used, and why."""
        return self.report.decision

    def to_frame(self) -> pd.DataFrame:
        """One row a layer."""
        return self.report.to_frame()

    def apply(self) -> None:
        """Write the new statistics into the model's own buffers."""
        if self.applied:
            return
        self._before = {
            name: (layer.estimated[0].clone(), layer.estimated[1].clone())
            for name, layer in self._layers.items()
        }
        self._write(self.statistics)
        self.applied = True

    def revert(self) -> None:
        """Write the old statistics back, bit for bit."""
        if self.applied:
            self._write(self._before)
            self.applied = False

    def _write(self, statistics: dict[str, tuple[Tensor, Tensor]]) -> None:
        with torch.no_grad():
            for name, (mean, var) in statistics.items():
                running_mean, running_var = self._layers[name].estimated
                running_mean.copy_(mean)
                running_var.copy_(var)

    def __repr__(self) -> str:
        return repr(self.report)


def recalibrate(
    model: nn.Module,
    data: Dataset[Any] | Iterable[Any],
    *,
    verify: Dataset[Any] | Iterable[Any] | None = None,
    verify_split: float | None = None,
    method: Method = "exact",
    momentum: float | None = None,
    prior: float = 0.0,
    layers: str | Sequence[str] = (),
    above: float | None = None,
    include_frozen: bool = False,
    max_memory: int | str | None = None,
    max_loss: float = 0.5,
    force: bool = False,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    task: Literal["auto", "classification", "other"] = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    samples: int | None = None,
    verify_samples: int | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: Literal["float32", "bf16", "fp16"] = "float32",
    channels_last: bool = False,
    progress: Bar | None = None,
    say: Callable[[str], None] | None = None,
) -> Recalibration:
    """Recalibrate the BatchNorm statistics of `model` on `data`, and verify them.

    The new statistics are written into the model where the verification accepts them, or where
    there is none; `result.revert()` puts the old ones back. Everything else stays as it was.

    Args:
        model: any eager module, in any mode and on any device; wrappers are looked through.
        data: calibration data: a map-style Dataset, or any iterable of batches, as for `measure`.
            Labels are not needed.
        verify: data that took no part, labelled if possible: they decide. Samples whose content is
            among the calibration data are left out.
        verify_split: instead, the share of `data` that is kept for verification.
        method: "exact" (all batches advance together; one pass), "sequential" (the same, layer by
            layer; no extra memory), "precise" (Wu & Johnson 2021) or "ema" (the framework's rule).
        momentum: of "ema"; default: each layer's own.
        prior: mixes in the old statistics as if they came from so many samples (Schneider 2020).
        layers: globs or /regexes/ of the layers that may change; default all.
        above: only layers whose own output shift exceeds this.
        include_frozen: recalibrate frozen layers as well.
        max_memory: bytes, or "8GB", for the activations that "exact" holds at once; default 70% of
            what is free. Where they do not fit, a subset is taken if `samples` is a number, and
            "sequential" runs if it is None.
        max_loss: percentage points of accuracy that may be lost for certain (95%).
        force: use the new statistics whatever the verification says.
        samples, verify_samples: at most so many are read; None reads all.
        forward, task, batch_size, seed, workers, device, dtype, channels_last: as for `measure`.
        progress: called as progress(what, total, unit), gives a context of `advance(done)`.
        say: called with a line about what is going on.

    Returns:
        The Recalibration: `result.report`, `result.decision`, `result.applied`, `result.revert()`.

    Raises:
        ModelError: the model cannot be recalibrated, or cannot take the data.
        NonFiniteError: an activation is NaN or infinite; names the layer and the batch.
        InputError: the data or the arguments do not fit.

    Example:
        >>> result = bnaudit.recalibrate(model, loader, verify=heldout)  # doctest: +SKIP
        >>> result.decision.sentence, result.applied  # doctest: +SKIP
    """
    inner = unwrap(model)
    target = usable_device(device, "device") if device is not None else None
    where = target or device_of(inner)
    conditions = Conditions(
        forward or default_forward, where, target, autocast(dtype), channels_last, seed
    )
    _check_arguments(method, momentum, prior, above, max_memory, max_loss)
    check_positive("batch_size", batch_size)
    if verify is not None and verify_split is not None:
        raise InputError("give verify or verify_split, not both")
    if verify is data:
        raise InputError("verify is the calibration data: give others, or verify_split")
    if verify_samples is not None and verify is None and verify_split is None:
        raise InputError("verify_samples needs verify or verify_split")
    made = reader_of(data, batch_size, samples, seed, workers, where)
    calibration, verification = Source(made, f"{type(data).__name__} object"), None
    if verify is not None:
        other = reader_of(verify, batch_size, verify_samples, seed, workers, where)
        verification = Source(other, f"{type(verify).__name__} object")
    elif verify_split is not None:
        calibration, verification = calibration.split(verify_split, verify_samples)
    limit = parse_size(str(max_memory), "max_memory") if max_memory is not None else None
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    result = recalibrate_with(
        model,
        calibration,
        verification,
        conditions,
        Choice(method, momentum, prior, above, limit, all_samples=samples is None),
        Limits(patterns, include_frozen, max_loss / 100, force),
        model_info=ModelInfo(type(inner).__qualname__, parameters=0, bn_layers={}),
        task=task,
        progress=progress or no_bar,
        say=say or _say_nothing,
    )
    if result.decision.use:
        result.apply()
    return result


def _check_arguments(
    method: str,
    momentum: float | None,
    prior: float,
    above: float | None,
    max_memory: int | str | None,
    max_loss: float,
) -> None:
    """Raises `InputError` for what cannot be meant."""
    if method not in get_args(Method):
        raise InputError(f"method is {method!r}: give one of {', '.join(get_args(Method))}")
    if momentum is not None and method != "ema":
        raise InputError(f'momentum is for method "ema", not {method!r}')
    if momentum is not None and not 0 < momentum <= 1:
        raise InputError(f"momentum is {momentum}: give a number above 0, and at most 1")
    for name, value in (("prior", prior), ("above", above), ("max_loss", max_loss)):
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{name} is {value}: give a number that is not negative")
    if isinstance(max_memory, int):
        check_positive("max_memory", max_memory)


@dataclass(frozen=True)
class Source:
    """Data of one part of the work, and how they are called."""

    reader: Reader
    name: str
    transform: str | None = None

    def split(self, share: float, verify_samples: int | None) -> tuple[Source, Source]:
        """These without `share` of them, and that share, for verification."""
        if not 0 < share < 1:
            raise InputError(f"verify_split is {share}: give a share between 0 and 1")
        mine, others = split_reader(self.reader, share, verify_samples)
        return replace(self, reader=mine), replace(self, reader=others)


@dataclass(frozen=True)
class Limits:
    """What may change and what is accepted. `max_loss`: 0 to 1."""

    patterns: tuple[str, ...] = ()
    include_frozen: bool = False
    max_loss: float = 0.005
    force: bool = False


def recalibrate_with(
    model: nn.Module,
    calibration: Source,
    verification: Source | None,
    conditions: Conditions,
    choice: Choice,
    limits: Limits,
    *,
    model_info: ModelInfo,
    task: Literal["auto", "classification", "other"],
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
    with conditions.entered(inner):
        plan = make_plan(inner, layers, calibration.reader, conditions, choice, say)
        if not plan.trial.calls and any(layer.role == "estimated" for layer in layers):
            raise ModelError(none_reached(layers))
        chosen, kept = select_layers(
            layers, plan.trial, limits.patterns, frozen=limits.include_frozen
        )
        own = own_statistics(layers)
        samples = plan.batches.samples
        rule = MixingRule(own, samples / (choice.prior + samples), choice.above, stored or {})
        plan, found, calibrated = _calibrate(
            inner, layers, chosen, plan, conditions, rule, choice, progress, say
        )
        kept |= left_alone(chosen, found, rule)
        verified = None
        if verification is not None and found.statistics:
            reader = verification.reader
            with progress("verifying", reader.total, "samples") as advance:
                verified = verify_with(
                    inner,
                    layers,
                    reader,
                    verification.name,
                    verification.transform,
                    conditions,
                    found.statistics,
                    plan.batches.hashes,
                    max_loss=limits.max_loss,
                    task=task,
                    seed=conditions.seed,
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
        notes=(*plan.notes, *found.notes),
        **largest(changed, samples),
    )
    statistics = {layer.name: found.statistics[layer] for layer in found.statistics}
    return Recalibration(
        report, statistics, _layers={layer.name: layer for layer in found.statistics}
    )


def _calibrate(
    model: nn.Module,
    layers: list[BNLayer],
    chosen: list[BNLayer],
    plan: Plan,
    conditions: Conditions,
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
        with progress(f"recalibrating ({plan.method})", *_steps(plan, chosen)) as advance:
            found = calibrate(model, chosen, plan, conditions, rule, choice, advance)
        return plan, found, _check(model, layers, plan, conditions, found, progress)

    try:
        made = attempt(plan)
        if _settled(*made):
            return made
        fault = "what layers see together is not what they see alone"
    except ForwardError as error:
        if plan.method != "exact":
            raise
        fault = one_line(error.__cause__ or error)
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


def _check(
    model: nn.Module,
    layers: list[BNLayer],
    plan: Plan,
    conditions: Conditions,
    found: Result,
    progress: Bar,
) -> Paired:
    """The calibration data under the old and the new statistics, one batch after another."""
    samples = plan.batches.samples
    with progress("checking on the calibration data", samples, "samples") as advance:
        return paired_pass(
            model,
            layers,
            plan.batches,
            plan.batches.groups,
            conditions,
            found.statistics,
            task="other",
            progress=advance,
        )


def _steps(plan: Plan, chosen: list[BNLayer]) -> tuple[int | None, str]:
    """How much there is to do, in which unit."""
    return (len(chosen), "layers") if plan.by_layer else (None, "batches")


def _say_nothing(line: str) -> None:
    pass
