"""From settings to the policy about findings. No torch."""

from __future__ import annotations

from bnaudit.config import Settings
from bnaudit.findings.policy import Policy


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings ask for. Raises `InputError` for codes that do not exist."""
    return Policy(
        thresholds={code.upper(): values for code, values in settings.thresholds.items()},
        select=tuple(code.upper() for code in settings.select),
        ignore=tuple(code.upper() for code in settings.ignore),
        severity={code.upper(): grade for code, grade in settings.severity.items()},
    ).checked()
