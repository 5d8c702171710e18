"""What the verbs of the toolbox (sweeps, domains, leakage) work on, from objects or settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import nn
from torch.utils.data import Dataset

from bnaudit.config import Settings
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import find_layers
from bnaudit.engine.outputs import Task
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import ModelError
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results import ModelInfo, Request
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.circumstances import about
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE
from bnaudit.verbs.policy import policy_of
from bnaudit.verbs.prepare import prepare
from bnaudit.verbs.request import request_of
from bnaudit.verbs.running import conditions_for
from bnaudit.verbs.samples import check_positive
from bnaudit.verbs.sources import Source, reader_of
from bnaudit.verbs.weights import Weights

Data = Dataset[Any] | Iterable[Any]


class RunOptions(TypedDict, total=False):
    """How a verb of the toolbox runs: keywords that all of them take, as `bnaudit.measure` does.

    forward: called as forward(model, batch); default model(inputs).
    task: "classification" for outputs (N, K), "other"; "auto" decides by the first output.
    batch_size: samples a forward, for a Dataset (default 32).
    samples: at most so many are read; None reads all.
    seed: of the sample order and of everything random inside (default 0).
    workers: processes that load a Dataset.
    device: where to run; default: where the model is.
    dtype: "float32", or "bf16" and "fp16" for autocast.
    channels_last: run in that memory format.
    policy: which findings are wanted, and their thresholds.
    progress: called as progress(what, total, unit), gives a context of `advance(done)`.
    say: called with a line of what is going on.
    """

    forward: Callable[[nn.Module, Any], Any]
    task: Task
    batch_size: int
    samples: int | None
    seed: int
    workers: int
    device: str | torch.device | None
    dtype: Literal["float32", "bf16", "fp16"]
    channels_last: bool
    policy: Policy
    progress: Bar
    say: Callable[[str], None]


@dataclass(frozen=True)
class Workbench:
    """A model, its data, and how to run: what a verb of the toolbox gets.

    `train`: what the model was trained on, where it is known. `weights`: how names in the
    checkpoint's file map to the model's, None without a file.
    """

    subject: Subject
    data: Source
    info: ModelInfo
    train: Source | None = None
    task: Task = "auto"
    policy: Policy = DEFAULT
    request: Request | None = None
    weights: Weights | None = None
    progress: Bar = no_bar
    say: Callable[[str], None] = lambda line: None

    @property
    def seed(self) -> int:
        """Of everything random."""
        return self.subject.conditions.seed

    def header(self) -> dict[str, Any]:
        """The fields `versions`, `device`, `dtype`, `model` and `request` of a result."""
        circumstances = about(self.subject.model, self.subject.conditions)
        return circumstances | {"model": self.info, "request": self.request}


def workbench(
    model: nn.Module, data: Data, *, train_data: Data | None = None, **options: Unpack[RunOptions]
) -> Workbench:
    """The workbench of a model object and data objects.

    Raises `InputError` for options that cannot be, `ModelError` for a model without BatchNorm.
    """
    return _with_statistics(any_workbench(model, data, train_data=train_data, **options))


def any_workbench(
    model: nn.Module, data: Data, *, train_data: Data | None = None, **options: Unpack[RunOptions]
) -> Workbench:
    """The same, also of a model without BatchNorm layers."""
    policy = options.get("policy", DEFAULT).checked()
    inner = unwrap(model)
    conditions = conditions_for(
        inner,
        options.get("forward"),
        options.get("device"),
        options.get("dtype", "float32"),
        options.get("channels_last", False),
        options.get("seed", 0),
    )
    info = ModelInfo(type(inner).__qualname__, parameters=0, bn_layers={})
    subject, info = _subject(inner, info, conditions)
    return Workbench(
        subject,
        source_of(data, conditions, **options),
        info,
        source_of(train_data, conditions, **options) if train_data is not None else None,
        options.get("task", "auto"),
        policy,
        progress=options.get("progress") or no_bar,
        say=options.get("say") or (lambda line: None),
    )


def source_of(data: Data, conditions: Conditions, **options: Unpack[RunOptions]) -> Source:
    """Data objects as a source. Raises `InputError` for what cannot be read."""
    batch_size = options.get("batch_size", DEFAULT_BATCH_SIZE)
    check_positive("batch_size", batch_size)
    reader = reader_of(
        data,
        batch_size,
        options.get("samples"),
        conditions.seed,
        options.get("workers", 0),
        conditions.device,
    )
    return Source(reader, f"{type(data).__name__} object")


def prepared_workbench(
    settings: Settings, default_samples: int, progress: Bar, say: Callable[[str], None]
) -> Workbench:
    """The workbench of what the settings name; `default_samples` where they do not say.

    Raises `InputError` that names the option at fault, `ModelError` for a model without BatchNorm.
    """
    return _with_statistics(any_prepared_workbench(settings, default_samples, progress, say))


def any_prepared_workbench(
    settings: Settings, default_samples: int, progress: Bar, say: Callable[[str], None]
) -> Workbench:
    """The same, also of a model without BatchNorm layers."""
    policy = policy_of(settings)
    parts = prepare(settings, default_samples)
    subject, info = _subject(unwrap(parts.model), parts.model_info, parts.conditions)
    return Workbench(
        subject,
        Source(parts.reader, parts.data_source, parts.transform),
        info,
        parts.train,
        settings.task,
        policy,
        request_of(settings),
        parts.weights,
        progress,
        say,
    )


def _subject(
    model: nn.Module, info: ModelInfo, conditions: Conditions
) -> tuple[Subject, ModelInfo]:
    layers = find_layers(model)
    kinds = dict(Counter(layer.kind for layer in layers))
    parameters = sum(p.numel() for p in model.parameters())
    return Subject(model, layers, conditions), replace(info, parameters=parameters, bn_layers=kinds)


def _with_statistics(bench: Workbench) -> Workbench:
    if not any(layer.role == "estimated" for layer in bench.subject.layers):
        raise ModelError("the model has no BatchNorm layer with statistics: there is nothing to do")
    return bench
