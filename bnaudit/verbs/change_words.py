"""Changes of accuracy and loss in words, for the conclusions of sweeps and their like."""

from __future__ import annotations

from bnaudit.results import Change


def in_points(change: Change | None) -> str:
    """`+1.5 points (95% interval +0.2 to +2.9)`."""
    if change is None:
        return "an unknown amount"
    limits = ""
    if change.low is not None and change.high is not None:
        low, high = _signed(100 * change.low, 1), _signed(100 * change.high, 1)
        limits = f" (95% interval {low} to {high})"
    return f"{_signed(100 * change.difference, 1)} points{limits}"


def in_nats(change: Change | None) -> str:
    """`0.105 to 0.090 nats (difference -0.015, 95% interval -0.020 to -0.010)`."""
    if change is None:
        return "by an unknown amount"
    limits = ""
    if change.low is not None and change.high is not None:
        limits = f", 95% interval {_signed(change.low, 3)} to {_signed(change.high, 3)}"
    return (
        f"from {change.before:.3f} to {change.after:.3f} nats "
        f"(difference {_signed(change.difference, 3)}{limits})"
    )


def surely_changes(change: Change | None) -> bool:
    """Whether the interval excludes 0."""
    if change is None or change.low is None or change.high is None:
        return False
    return change.low > 0 or change.high < 0


def _signed(value: float, digits: int) -> str:
    """`+1.5`, and `0.0` for what rounds to it: it has no sign."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"
