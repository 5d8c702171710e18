"""What bounded a run, in one line: the shares of its time, and what would make it shorter."""

from __future__ import annotations

from bnaudit.results import RunTime
from bnaudit.results.run_time import KINDS, Kind, Spent

ALONE: tuple[Kind, ...] = ("data", "forward", "moments", "rest")
"""The kinds of work that one process has."""

NAMES: dict[Kind, str] = {"rest": "the rest", "waiting": "waiting for other ranks"}
"""Of the kinds whose own word does not end a sentence."""

APART = 0.2
"""Ranks whose shares of waiting differ by more are not alike: the one that waits least is named."""

WORTH_ADVICE = 5.0
"""Seconds that a run has to take: nobody needs a shorter one made shorter."""


def bound(run: RunTime, device: str, dtype: str) -> str:
    """`bounded by data: data 71%, forward 20%, moments 7%, rest 2% of 41 s; more --workers …`.

    `device` and `dtype` as a result tells them: the advice, for runs worth it, depends on them. On
    several ranks the shares are means over ranks. Where one keeps the others waiting, the run is
    bounded by what that one does.
    """
    shares = run.seconds.shares
    slowest = slowest_rank(run)
    if slowest is None:
        largest, by, ranks = shares.largest, "", ""
    else:
        own = run.ranks[slowest].shares
        largest, by = own.largest, f" on rank {slowest}"
        ranks = f"; the others wait for rank {slowest}: {largest} {own.of(largest):.0%} there"
    if len(run.ranks) > 1:
        ranks = f" on {len(run.ranks)} ranks{ranks}"
    advice = f"; {_advice(largest, device, dtype)}" if run.wall_seconds >= WORTH_ADVICE else ""
    return (
        f"bounded by {NAMES.get(largest, largest)}{by}: {_in_words(shares, len(run.ranks))} of "
        f"{_duration(run.wall_seconds)}{ranks}{advice}"
    )


def slowest_rank(run: RunTime) -> int | None:
    """The rank that the others wait for; None where all wait about as long, or there is one."""
    waiting = [spent.shares.waiting for spent in run.ranks]
    if max(waiting, default=0.0) - min(waiting, default=0.0) <= APART:
        return None
    return waiting.index(min(waiting))


def _in_words(shares: Spent, ranks: int) -> str:
    kinds = KINDS if ranks > 1 else ALONE
    return ", ".join(f"{kind} {shares.of(kind):.0%}" for kind in kinds)


def _duration(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"


def _advice(kind: Kind, device: str, dtype: str) -> str:
    on_cuda = device.startswith("cuda")
    if kind == "data" and on_cuda:
        return "more --workers, or --decode gpu for JPEGs, would help"
    if kind == "data":
        return "more --workers, or cores for them, would help"
    if kind == "forward" and not on_cuda:
        return "a GPU (--device cuda) or fewer --samples would help"
    if kind == "forward" and dtype == "float32":
        return "--dtype bf16 or a larger --batch-size would help"
    if kind == "forward":
        return "a larger --batch-size, or more GPUs (torchrun), would help"
    if kind == "moments":
        return "a larger --batch-size would help"
    if kind == "collectives":
        return "fewer ranks, or a faster network between them, would help"
    if kind == "waiting":
        return "ranks of equal speed would help"
    return "the rest is checks of the data, intervals and findings"
