"""Changes of accuracy and loss in words, for the conclusions of sweeps and their like."""

from __future__ import annotations

from bnaudit.results import Change


def in_points(change: Change | None) -> str:
    """`+1.5 points (95% interval +0.2 to +2.9)`."""
    if change is None:
        return "an unknown amount"
    limits = ""
    if change.low is not None and change.high is not None:
        limits = f" (95% interval {100 * change.low:+.1f} to {100 * change.high:+.1f})"
    return f"{100 * change.difference:+.1f} points{limits}"


def in_nats(change: Change | None) -> str:
    """`0.105 to 0.090 nats (difference -0.015, 95% interval -0.020 to -0.010)`."""
    if change is None:
        return "by an unknown amount"
    limits = ""
    if change.low is not None and change.high is not None:
        limits = f", 95% interval {change.low:+.3f} to {change.high:+.3f}"
    return (
        f"from {change.before:.3f} to {change.after:.3f} nats "
        f"(difference {change.difference:+.3f}{limits})"
    )


def surely_changes(change: Change | None) -> bool:
    """Whether the interval excludes 0."""
    if change is None or change.low is None or change.high is None:
        return False
    return change.low > 0 or change.high < 0
