"""Tests of many layers at once, on the figures of an Audit. No torch."""

from __future__ import annotations

from bnaudit.stats.quantiles import student_upper_tail


def upper_tail_p(estimate: float, standard_error: float, groups: int, threshold: float) -> float:
    """The one-sided p-value of "the figure does not exceed `threshold`"."""
    if standard_error == 0:
        return 0.0 if estimate > threshold else 1.0
    t = (estimate - threshold) / standard_error
    return student_upper_tail(t, groups - 1)


def holm(p_values: list[float], level: float = 0.05) -> list[bool]:
    """Which hypotheses Holm's step-down procedure (1979) rejects, family-wise at `level`."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
