"""From settings to the policy about findings. No torch."""

from __future__ import annotations

from bnaudit.config import Settings
from bnaudit.findings.policy import Policy


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings ask for. Raises `InputError` for codes that do not exist."""
    return Policy(
        thresholds=settings.thresholds,
        select=tuple(settings.select),
        ignore=tuple(settings.ignore),
        severity=settings.severity,
    ).checked()
