"""The gate on a checkpoint: measure it, and where asked the one before it on the same samples."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from bnaudit.config import Settings
from bnaudit.errors import InputError, NonFiniteError
from bnaudit.findings.policy import Policy
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.gate import Measured
from bnaudit.verbs.measure import DEFAULT_SAMPLES
from bnaudit.verbs.measure_prepared import measure_prepared
from bnaudit.verbs.not_finite import verdict_without_figures
from bnaudit.verbs.prepare import Prepared, check_said, prepare
from bnaudit.verbs.request import request_of


class Loading(Protocol):
    """Shows that something is being loaded."""

    def __call__(self, what: str) -> AbstractContextManager[object]:
        """A context around the loading of `what`."""


def measure_for_gate(
    settings: Settings, policy: Policy, progress: Bar, loading: Loading
) -> Measured:
    """Measure the checkpoint of the settings, after its base checkpoint where there is one.

    Both go through the same samples in the same order, so that the comparison is paired. Where
    activations are not finite there is a verdict instead; of the base checkpoint that is an
    `InputError`.
    """
    base = None
    check_said(settings)
    if settings.gate.base_checkpoint is not None:
        earlier = settings.model_copy(update={"checkpoint": settings.gate.base_checkpoint})
        try:
            base = measure_prepared(_prepared(earlier, loading), earlier, policy, progress)
        except NonFiniteError as error:
            raise InputError(f"--base-checkpoint {earlier.checkpoint}: {error}") from error
    parts = _prepared(settings, loading)
    try:
        return Measured(measure_prepared(parts, settings, policy, progress), base)
    except NonFiniteError as error:
        verdict = verdict_without_figures(
            error,
            parts.model,
            parts.model_info,
            parts.data_source,
            settings.gate,
            policy,
            request_of(settings),
            parts.weights,
        )
        return Measured(verdict=verdict)


def _prepared(settings: Settings, loading: Loading) -> Prepared:
    with loading(f"loading {settings.checkpoint or settings.model}"):
        return prepare(settings, DEFAULT_SAMPLES)
