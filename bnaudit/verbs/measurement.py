"""A measurement of parts that are in hand: the pass, the checks, where the shift comes from."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from torch import nn

from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import BNLayer, find_layers
from bnaudit.engine.outputs import Task
from bnaudit.engine.passes import NO_MINI_BATCHES, Measurement, measure_pass
from bnaudit.engine.ranks import ALONE
from bnaudit.engine.stopwatch import Stopwatch, run_time, running
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import InputError, ModelError, NonFiniteError
from bnaudit.findings import commands
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.findings.rules.preprocessing import CODE
from bnaudit.findings.verdict import judge
from bnaudit.results import Audit, DataChecks, ModelInfo, Preprocessing, Request, TrainedOn
from bnaudit.results.state import State
from bnaudit.verbs import attribution
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.circumstances import about
from bnaudit.verbs.data_checks import CHECKED_SAMPLES, ORDER_SAMPLES, check_data
from bnaudit.verbs.figures import audit_layer, channel_table, describe_layer
from bnaudit.verbs.kept import Kept
from bnaudit.verbs.other_eps import try_other_eps
from bnaudit.verbs.preprocessing import MOST_SAMPLES, try_preprocessing
from bnaudit.verbs.samples import Reader, check_positive
from bnaudit.verbs.sources import Source, data_info
from bnaudit.verbs.stored_state import state_of_model
from bnaudit.verbs.trained_on import trained_on
from bnaudit.verbs.weights import Weights

KEPT_SAMPLES = 256
"""So many of the samples are looked at again, for what they tell about the data themselves."""

CHECKED = max(KEPT_SAMPLES, MOST_SAMPLES, CHECKED_SAMPLES)
"""So many at most are looked at by any of the checks, but for the order of a loader's batches."""


def measure_with(
    model: nn.Module,
    reader: Reader,
    conditions: Conditions,
    *,
    model_info: ModelInfo,
    data_source: str,
    transform: str | None = None,
    train_batch_size: int | None = None,
    task: Literal["auto", "classification", "other"] = "auto",
    compare: Callable[[Any, Any], float | Mapping[str, float]] | None = None,
    attribute: int | Literal["all", "none"],
    train: Source | None = None,
    weights: Weights | None = None,
    policy: Policy = DEFAULT,
    request: Request | None = None,
    progress: Bar,
) -> Audit:
    """Measure parts that are already in hand: what the command line and `measure` share.

    The arguments are those of `measure`; `request`: the options, for the commands of findings;
    `weights`: what the checkpoint had for the model.
    """
    policy = policy.checked()
    inner = unwrap(model)
    layers = find_layers(inner)
    _check_mini_batch(train_batch_size, reader)
    audit = Audit(
        **about(inner, conditions),
        model=replace(
            model_info,
            parameters=sum(p.numel() for p in inner.parameters()),
            bn_layers=dict(Counter(layer.kind for layer in layers)),
        ),
        data=None,
        batch_statistics_size=None,
        layers=tuple(describe_layer(layer, None) for layer in layers),
        network=None,
        train_batch_size=train_batch_size,
        request=request,
    )
    stored = state_of_model(layers, model_info.checkpoint or model_info.source, weights)
    stored = replace(stored, recalibrate=commands.recalibrate(audit))
    with running(Stopwatch.on(conditions.device)) as stopwatch:
        if any(layer.role == "estimated" for layer in layers):
            wanted = _attributed(attribute)
            ranks = conditions.ranks
            kept = Kept(reader, max(wanted, KEPT_SAMPLES), ranks)
            try:
                with progress("measuring", reader.total, "samples") as advance:
                    seen = measure_pass(
                        inner,
                        layers,
                        kept,
                        reader.groups,
                        conditions,
                        mini_batch_size=train_batch_size or reader.mini_batch_size,
                        task=task,
                        compare=compare,
                        progress=ranks.shared(advance),
                    )
            except NonFiniteError as error:
                raise _explained(error, stored) from error
            if not seen.records:
                raise ModelError(none_reached(layers))
            audit = _with_figures(audit, layers, seen, reader, data_source, transform)
            if audit.audited and any(ranks.gather(bool(kept.batches))):
                subject = Subject(inner, layers, conditions)
                audit = _with_checks(audit, subject, stored, kept, task, policy)
                if wanted:
                    batches = kept.regrouped(wanted)
                    audit = attribution.attribute(
                        audit, inner, layers, batches, conditions, task, progress
                    )
            if train is not None:
                figured = {layer.name for layer in audit.audited}
                audited = [layer for layer in layers if layer.name in figured]
                subject = Subject(inner, audited, conditions)
                found = _on_training_data(subject, train, seen, reader, task, progress)
                audit = replace(audit, trained_on=found)
        audit = replace(audit, verdict=judge(audit, policy))
        audit = replace(audit, findings=conclude((stored, audit), policy))
        spent = conditions.ranks.gather(stopwatch.spent())
        return replace(audit, run_time=run_time(spent, _samples(audit)))


def _samples(audit: Audit) -> int:
    """Of all data that were measured."""
    trained = audit.trained_on.data if audit.trained_on is not None else None
    return sum(data.samples for data in (audit.data, trained) if data is not None)


def _with_checks(
    audit: Audit,
    subject: Subject,
    stored: State,
    kept: Kept,
    task: Task,
    policy: Policy,
) -> Audit:
    """What the first samples tell about the data, before anything is blamed on the estimates.

    A model that does not bear being run again leaves a note. One rank looks, on its own.
    """
    ranks = subject.conditions.ranks
    alone = replace(subject, conditions=replace(subject.conditions, ranks=ALONE))
    drawn = kept.reader.order_seed is not None
    kept = kept.of_all_ranks(CHECKED if drawn else max(CHECKED, ORDER_SAMPLES))

    def checked() -> tuple[Preprocessing | None, DataChecks]:
        with alone.conditions.entered(alone.model):
            checks = check_data(audit, alone, kept)
            other_eps = try_other_eps(alone, stored, kept.as_given(KEPT_SAMPLES), task)
            wanted = policy.wants(find_rule(CODE))
            tried = try_preprocessing(alone, kept.regrouped()) if wanted else None
        return tried, replace(checks, other_eps=other_eps)

    try:
        preprocessing, checks = ranks.from_first(checked)
    except (ModelError, NonFiniteError) as error:
        said = ranks.from_first(partial(str, error))  # the others' names the rank
        return replace(audit, notes=(*audit.notes, f"the data were not checked: {said}"))
    return replace(audit, preprocessing=preprocessing, data_checks=checks)


def _explained(error: NonFiniteError, stored: State) -> NonFiniteError:
    """The error with what the stored state says: it is the cause where it is broken itself."""
    broken = [f for f in conclude((stored,)) if f.code in ("BN001", "BN002", "BN003")]
    if not broken:
        return error
    causes = " ".join(f"{finding.code}: {finding.sentence} {finding.remedy}" for finding in broken)
    return NonFiniteError(f"{causes} That is why {error}", layer=error.layer, batch=error.batch)


def _on_training_data(
    subject: Subject, train: Source, seen: Measurement, reader: Reader, task: Task, progress: Bar
) -> TrainedOn:
    """The deployed condition on the training data, and how far the reference data are from it."""
    trained = train.reader
    with progress("measuring the training data", trained.total, "samples") as advance:
        there = measure_pass(
            subject.model,
            subject.layers,
            trained,
            trained.groups,
            subject.conditions,
            mini_batch_size=NO_MINI_BATCHES,
            task=task,
            progress=subject.conditions.ranks.shared(advance),
        )
    return trained_on(
        subject.layers,
        seen,
        reader.final_groups(seen.samples),
        there,
        trained.final_groups(there.samples),
        data_info(trained, train.name, there.samples, train.transform, labelled=there.labelled),
    )


def _with_figures(
    audit: Audit,
    layers: list[BNLayer],
    seen: Measurement,
    reader: Reader,
    data_source: str,
    transform: str | None,
) -> Audit:
    final_groups = reader.final_groups(seen.samples)
    audited, channels = [], []
    for layer in layers:
        record = seen.records.get(layer.name)
        described = describe_layer(layer, record)
        if described.status == "audited" and record is not None:
            described, figures = audit_layer(layer, record, final_groups)
            channels.append(figures)
        audited.append(described)
    data = data_info(reader, data_source, seen.samples, transform, labelled=seen.labelled)
    channels.sort(key=lambda figures: seen.records[figures.name].order)
    return replace(
        audit,
        data=data,
        batch_statistics_size=seen.mini_batch_size,
        layers=tuple(audited),
        network=seen.network,
        channels=channel_table(channels),
    )


def _attributed(samples: int | Literal["all", "none"]) -> int:
    if isinstance(samples, str):
        return sys.maxsize if samples == "all" else 0
    check_positive("attribute", samples)
    return samples


def _check_mini_batch(train_batch_size: int | None, reader: Reader) -> None:
    size = reader.pass_batch_size
    if train_batch_size and size and train_batch_size > size:
        raise InputError(
            f"--train-batch-size {train_batch_size} is larger than the loader's batches of "
            f"{size}: let the loader give batches of at least {train_batch_size}"
        )


def none_reached(layers: list[BNLayer]) -> str:
    """What to say of a forward that called no layer."""
    return (
        f"none of the {len(layers)} BatchNorm layers was reached by the forward (first: "
        f"{layers[0].name}): does --forward call this model, or a compiled or copied one?"
    )
