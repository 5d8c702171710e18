"""The limits of the settings."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.config import GateSettings
from bnaudit.findings.gate.ignores import Ignores
from bnaudit.findings.gate.layer_limits import layer_limits
from bnaudit.findings.gate.network_limits import network_limits
from bnaudit.results import Audit, Check

LIMITS = (
    "max_layer_esm",
    "max_total_esm",
    "max_disagreement",
    "min_accuracy",
    "max_cross_entropy",
)
"""The settings that are limits."""


def limits(audit: Audit, settings: GateSettings, ignores: Ignores) -> Iterator[Check]:
    """Figures of one Audit, without a baseline: one check for each limit that is set."""
    yield from layer_limits(audit, settings, ignores)
    yield from network_limits(audit, settings)
