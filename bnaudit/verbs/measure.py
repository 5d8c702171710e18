"""`measure`: a model and data in, the state of every BatchNorm layer out."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import Dataset

from bnaudit._version import __version__
from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import BNLayer, find_layers
from bnaudit.engine.outputs import Task
from bnaudit.engine.passes import NO_MINI_BATCHES, Measurement, measure_pass
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import InputError, ModelError
from bnaudit.findings import commands
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.findings.verdict import judge
from bnaudit.results import Audit, ModelInfo, Request, TrainedOn
from bnaudit.results.state import State
from bnaudit.verbs import attribution
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.data_checks import check_data
from bnaudit.verbs.devices import device_of, usable_device
from bnaudit.verbs.figures import audit_layer, channel_table, describe_layer
from bnaudit.verbs.other_eps import try_other_eps
from bnaudit.verbs.preprocessing import try_preprocessing
from bnaudit.verbs.samples import Reader, check_positive
from bnaudit.verbs.sources import Source, data_info, reader_of
from bnaudit.verbs.stored_state import state_of_model
from bnaudit.verbs.trained_on import trained_on

DEFAULT_BATCH_SIZE = 32

DEFAULT_SAMPLES = 2000
"""How many samples the command line draws unless told otherwise."""

KEPT_SAMPLES = 256
"""So many of the samples are looked at again, for what they tell about the data themselves."""

_AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(dtype: str) -> torch.dtype | None:
    """The dtype of autocast by its name on the command line; None for float32."""
    if dtype not in _AUTOCAST:
        raise InputError(f"dtype is {dtype!r}: give one of {', '.join(_AUTOCAST)}")
    return _AUTOCAST[dtype]


def measure(
    model: nn.Module,
    data: Dataset[Any] | Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    compare: Callable[[Any, Any], float | Mapping[str, float]] | None = None,
    task: Literal["auto", "classification", "other"] = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    train_batch_size: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: Literal["float32", "bf16", "fp16"] = "float32",
    channels_last: bool = False,
    attribute: int | Literal["all", "none"] = attribution.DEFAULT_SAMPLES,
    train_data: Dataset[Any] | Iterable[Any] | None = None,
    policy: Policy = DEFAULT,
    progress: Bar | None = None,
) -> Audit:
    """Measure every BatchNorm layer of `model` on `data`, and leave the model as it was.

    Args:
        model: any eager module, in any mode and on any device; wrappers are looked through.
        data: a map-style Dataset, from which `samples` (default: all) are drawn and read in a
            seeded random order; or any iterable of batches, such as a DataLoader, read as it
            comes: let it shuffle. A batch is a tensor, an (inputs, labels) pair or a dict; write
            a list of images of different sizes as (images,) or (images, targets).
        forward: called as forward(model, batch); default model(inputs).
        compare: for outputs that are no class scores: compare(deployed_output, other_output) gives
            a figure or a dict of figures for a mini-batch.
        task: "classification" for outputs (N, K); "auto" decides by the first output.
        batch_size: samples a forward, for a Dataset.
        train_batch_size: the mini-batch size of the discrepancy; default: the batches' size.
        samples: at most so many are read; None reads all.
        seed: of the sample order and of everything random inside.
        workers: processes that load a Dataset.
        device: where to run, e.g. "cuda"; default: where the model is.
        dtype: "bf16" and "fp16" run under autocast; moments are accumulated in float32 or better.
        channels_last: run in that memory format.
        attribute: own and inherited shift of each layer, and how few layers matter, on the first
            so many samples read; "none" saves about half of the time.
        train_data: what the model was trained on: tells wrong estimates from data that moved.
        policy: which findings are wanted, and their thresholds (`bnaudit.Policy`).
        progress: called as progress(what, total, unit), gives a context of `advance(done)`.

    Returns:
        The Audit: `audit.findings`, `audit.layers`, `audit.network`, `audit.to_frame()`; shifts in
        standard deviations of the normalised activation (Huang et al. 2022, normalised form).

    Raises:
        ModelError: the model cannot be audited, or cannot take the data.
        NonFiniteError: an activation is NaN or infinite; names the layer and the batch.
        InputError: the data are empty, or labels and outputs do not fit.

    Example:
        >>> audit = bnaudit.measure(model, loader)  # doctest: +SKIP
        >>> audit.to_frame()[["name", "total_shift", "batch_noise"]]  # doctest: +SKIP
    """
    check_positive("train_batch_size", train_batch_size)
    inner = unwrap(model)
    target = usable_device(device, "device") if device is not None else None
    where = target or device_of(inner)
    conditions = Conditions(
        forward or default_forward, where, target, autocast(dtype), channels_last, seed
    )
    check_positive("batch_size", batch_size)
    size = pass_batch_size(batch_size, train_batch_size)
    reader = reader_of(data, size, samples, seed, workers, where)
    train = None
    if train_data is not None:
        trained = reader_of(train_data, size, samples, seed, workers, where)
        train = Source(trained, f"{type(train_data).__name__} object")
    source = ModelInfo(type(inner).__qualname__, parameters=0, bn_layers={})
    return measure_with(
        model,
        reader,
        conditions,
        model_info=source,
        data_source=f"{type(data).__name__} object",
        train_batch_size=train_batch_size,
        task=task,
        compare=compare,
        attribute=attribute,
        train=train,
        policy=policy,
        progress=progress or no_bar,
    )


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
    policy: Policy = DEFAULT,
    request: Request | None = None,
    progress: Bar,
) -> Audit:
    """The same for parts that are already in hand: what the command line and `measure` share."""
    policy.checked()
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
        request=request,
    )
    stored = state_of_model(layers, model_info.checkpoint or model_info.source)
    stored = replace(stored, recalibrate=commands.recalibrate(audit))
    if any(layer.role == "estimated" for layer in layers):
        wanted = _attributed(attribute)
        kept = attribution.Kept(reader, max(wanted, KEPT_SAMPLES))
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
                progress=advance,
            )
        if not seen.records:
            raise ModelError(none_reached(layers))
        audit = _with_figures(audit, layers, seen, reader, data_source, transform)
        if kept.batches and audit.audited:
            audit = _with_checks(audit, Subject(inner, layers, conditions), stored, kept, task)
            if wanted:
                batches = kept.regrouped(wanted)
                audit = attribution.attribute(
                    audit, inner, layers, batches, conditions, task, progress
                )
        if train is not None:
            subject = Subject(inner, layers, conditions)
            found = _on_training_data(subject, train, seen, reader, task, progress)
            audit = replace(audit, trained_on=found)
    audit = replace(audit, verdict=judge(audit, policy))
    return replace(audit, findings=conclude((stored, audit), policy))


def _with_checks(
    audit: Audit, subject: Subject, stored: State, kept: attribution.Kept, task: Task
) -> Audit:
    """What the first samples tell about the data, before anything is blamed on the estimates."""
    with subject.conditions.entered(subject.model):
        checks = check_data(audit, subject, kept)
        return replace(
            audit,
            preprocessing=try_preprocessing(subject, kept.regrouped()),
            data_checks=replace(
                checks, other_eps=try_other_eps(subject, stored, kept.batches, task)
            ),
        )


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
            progress=advance,
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


def pass_batch_size(batch_size: int, train_batch_size: int | None) -> int:
    """The batch size of the pass, a multiple of the mini-batch size: batches hold whole ones."""
    if train_batch_size is None:
        return batch_size
    return max(train_batch_size, batch_size - batch_size % train_batch_size)


def _check_mini_batch(train_batch_size: int | None, reader: Reader) -> None:
    size = reader.pass_batch_size
    if train_batch_size and size and train_batch_size > size:
        raise InputError(
            f"--train-batch-size {train_batch_size} is larger than the loader's batches of "
            f"{size}: let the loader give batches of at least {train_batch_size}"
        )


def about(model: nn.Module, conditions: Conditions) -> dict[str, Any]:
    """The fields `versions`, `device` and `dtype` of a result."""
    return {
        "versions": _versions(),
        "device": _device_name(conditions.device),
        "dtype": str(conditions.autocast or _dtype_of(model)).removeprefix("torch."),
    }


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _versions() -> dict[str, str]:
    return {
        "bnaudit": __version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "python": platform.python_version(),
    }


def none_reached(layers: list[BNLayer]) -> str:
    """What to say of a forward that called no layer."""
    return (
        f"none of the {len(layers)} BatchNorm layers was reached by the forward (first: "
        f"{layers[0].name}): does --forward call this model, or a compiled or copied one?"
    )
