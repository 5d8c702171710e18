"""The workbench of `leakage`: of any model, for one without BatchNorm may mix its batch as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

from torch import nn

from bnaudit.config import Settings
from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import find_layers
from bnaudit.engine.wrappers import unwrap
from bnaudit.findings.policy import DEFAULT
from bnaudit.results import ModelInfo
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.devices import device_of, usable_device
from bnaudit.verbs.measure import autocast
from bnaudit.verbs.policy import policy_of
from bnaudit.verbs.prepare import prepare
from bnaudit.verbs.request import request_of
from bnaudit.verbs.sources import Source
from bnaudit.verbs.workbench import Data, RunOptions, Workbench, source_of

SAMPLES = 1000
"""How many samples are drawn unless told otherwise: each is run a dozen times."""


def leakage_bench(model: nn.Module, data: Data, **options: Unpack[RunOptions]) -> Workbench:
    """The workbench of a model object and a data object; of 1,000 samples unless told otherwise.

    Raises `InputError` for options that cannot be.
    """
    options = {"samples": SAMPLES, **options}
    policy = options.get("policy", DEFAULT).checked()
    inner = unwrap(model)
    device = options.get("device")
    target = usable_device(device, "device") if device is not None else None
    conditions = Conditions(
        options.get("forward") or default_forward,
        target or device_of(inner),
        target,
        autocast(options.get("dtype", "float32")),
        options.get("channels_last", False),
        options.get("seed", 0),
    )
    subject = Subject(inner, find_layers(inner), conditions)
    return Workbench(
        subject,
        source_of(data, conditions, **options),
        _info(subject, ModelInfo(type(inner).__qualname__, parameters=0, bn_layers={})),
        task=options.get("task", "auto"),
        policy=policy,
        progress=options.get("progress") or no_bar,
        say=options.get("say") or (lambda line: None),
    )


def prepared_leakage_bench(
    settings: Settings, progress: Bar, say: Callable[[str], None]
) -> Workbench:
    """The workbench of what the settings name. Raises `InputError` that names the option."""
    policy = policy_of(settings)
    parts = prepare(settings, SAMPLES)
    inner = unwrap(parts.model)
    subject = Subject(inner, find_layers(inner), parts.conditions)
    return Workbench(
        subject,
        Source(parts.reader, parts.data_source, parts.transform),
        _info(subject, parts.model_info),
        task=settings.task,
        policy=policy,
        request=request_of(settings),
        progress=progress,
        say=say,
    )


def _info(subject: Subject, info: ModelInfo) -> ModelInfo:
    parameters = sum(p.numel() for p in subject.model.parameters())
    kinds = dict(Counter(layer.kind for layer in subject.layers))
    return replace(info, parameters=parameters, bn_layers=kinds)
