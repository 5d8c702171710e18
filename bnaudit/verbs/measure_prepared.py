"""Measuring what the settings name, once its parts are prepared."""

from __future__ import annotations

from bnaudit.config import Settings
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import find_layers
from bnaudit.engine.wrappers import unwrap
from bnaudit.findings.policy import Policy
from bnaudit.results import Audit
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.in_step import in_step
from bnaudit.verbs.measurement import measure_with
from bnaudit.verbs.prepare import Prepared
from bnaudit.verbs.request import request_of


def measure_prepared(parts: Prepared, settings: Settings, policy: Policy, progress: Bar) -> Audit:
    """The Audit of the parts that `prepare` made of these settings."""
    inner = unwrap(parts.model)
    with in_step(Subject(inner, find_layers(inner), parts.conditions)):
        return measure_with(
            parts.model,
            parts.reader,
            parts.conditions,
            model_info=parts.model_info,
            data_source=parts.data_source,
            transform=parts.transform,
            train_batch_size=settings.train_batch_size,
            task=settings.task,
            compare=parts.compare,
            attribute=settings.attribute,
            train=parts.train,
            weights=parts.weights,
            policy=policy,
            request=request_of(settings),
            progress=progress,
        )
