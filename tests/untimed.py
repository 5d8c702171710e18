"""Results without the time that they took, which is of one run."""

from __future__ import annotations

from dataclasses import replace

from bnaudit.results import Audit, Recalibrated


def untimed(result: Audit | Recalibrated) -> str:
    """Its document: that of the same work is the same, to the last bit."""
    return replace(result, run_time=None).to_json()
