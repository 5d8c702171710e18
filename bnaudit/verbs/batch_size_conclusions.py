"""What a sweep over the normalisation batch size says: at which one the model was trained, and what
a larger one gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnaudit.engine.variants import Outcomes
from bnaudit.results.sweep import Conclusion, Role
from bnaudit.verbs.change_words import in_points, surely_changes
from bnaudit.verbs.scores import Mask, accuracy_between, loss_between

BySize = Mapping[int, Outcomes]

PEAK = 0.01
"""An accuracy at most so far below the best one counts as at its peak: at their own size trained
networks lose from nothing (32) to a few points (2) to the noise of their mini-batches."""


def trained_at(seen: Mapping[Role, BySize]) -> Conclusion | None:
    """Where the train-mode accuracy reaches its peak, on training data if they are known.

    Weights are fitted to the noise of their own mini-batches: at that size train mode does about as
    well as it ever will; below, it falls (Wu & Johnson 2021). `candidates` are the sizes that are
    not below the best by more than `PEAK` (and significantly so: paired, at 95% each), `value` is
    the smallest of them. A hint, and no more: the small networks of tests/sweep came out at 4 or 8
    where they were trained at 2, at 8 to 16 where it was 8 to 32, and as a rule larger sizes cannot
    be told apart. None without labels, or with a single size; `value` is None where even the
    smallest size does as well as the best.
    """
    role: Role = "train" if seen.get("train") else "held-out"
    by_size = seen.get(role, {})
    if len(by_size) < 2:
        return None
    common = np.logical_and.reduce([found.took_part for found in by_size.values()])
    accuracy = {size: _accuracy(found, common) for size, found in by_size.items()}
    if any(np.isnan(value) for value in accuracy.values()):
        return None
    sizes = sorted(by_size)
    best = max(sizes, key=lambda size: accuracy[size])
    at_peak = [s for s in sizes if not _surely_below(by_size[s], by_size[best], common)]
    where = "the training data" if role == "train" else "held-out data (training data tell better)"
    told = at_peak[0] > sizes[0]
    return Conclusion(
        "trained-at",
        _sentence(sizes, at_peak, accuracy, where) if told else _nothing(sizes, where),
        value=float(at_peak[0]) if told else None,
        candidates=tuple(map(float, at_peak)),
        significant=told,
    )


def _sentence(sizes: list[int], at_peak: list[int], accuracy: dict[int, float], where: str) -> str:
    size, lower = at_peak[0], max(s for s in sizes if s < at_peak[0])
    if at_peak[-1] == sizes[-1]:
        about, peak = f"{size} or more", "from there on"
    elif len(at_peak) == 1:
        about, peak = f"{size}", "there"
    else:
        about, peak = f"{size} to {at_peak[-1]}", "there"
    return (
        f"Probably trained at mini-batches of about {about}: {peak} the accuracy under mini-batch "
        f"statistics on {where} is at its peak ({100 * accuracy[size]:.1f}%; at {lower} "
        f"{100 * accuracy[lower]:.1f}%)."
    )


def _nothing(sizes: list[int], where: str) -> str:
    return (
        f"On {where} the accuracy under mini-batch statistics does not tell at which size the "
        f"model was trained: mini-batches of {sizes[0]} do no worse than larger ones."
    )


def larger_batch(
    seen: Mapping[Role, BySize], seed: int, trained: Conclusion | None, current: int | None
) -> Conclusion | None:
    """What the largest size that was tried gives over the one it was trained at.

    That is `current` where the user names it, otherwise what `trained` concludes. On held-out
    data, on the samples that both cover. None where the size is not known or was not tried, is the
    largest, or there are no labels.
    """
    by_size = seen.get("held-out", {})
    size = current if current is not None else int(trained.value or 0) if trained else 0
    if size not in by_size or size == max(by_size):
        return None
    largest = max(by_size)
    gain = accuracy_between(by_size[size], by_size[largest])
    if gain is None:
        return None
    return Conclusion(
        "larger-batch",
        f"Normalising by mini-batches of {largest} instead of {size} changes the held-out accuracy "
        f"by {in_points(gain)}.",
        value=float(largest),
        gain=gain,
        loss_gain=loss_between(by_size[size], by_size[largest], seed),
        significant=surely_changes(gain),
    )


def _accuracy(found: Outcomes, among: Mask) -> float:
    known = found.correct[among & ~np.isnan(found.correct)]
    return float(known.mean()) if len(known) else float("nan")


def _surely_below(found: Outcomes, best: Outcomes, among: Mask) -> bool:
    change = accuracy_between(found, best, among)
    if change is None or change.low is None:
        return False
    return change.low > 0 and change.difference > PEAK
