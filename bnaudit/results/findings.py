"""What bnaudit concludes: findings, as a linter's. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The gravest first."""


@dataclass(frozen=True)
class Finding:
    """One conclusion, with what it rests on and what to do about it.

    `code` is stable (`bnaudit explain CODE`), `name` is the same in words. `layers`: whom it
    concerns, empty for the network or the data as a whole; a cause that several layers share is one
    finding. `sentence` tells it with the figures, `evidence` holds these as plain data. `remedy`
    says what to do, `command` is the command that does it, where there is one. `source`: the paper
    or the report that it comes from.
    """

    code: str
    name: str
    severity: Severity
    sentence: str
    remedy: str
    source: str
    layers: tuple[str, ...] = ()
    command: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
