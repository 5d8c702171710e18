"""What the time of a run went into, as it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

Kind = Literal["data", "forward", "moments", "collectives", "waiting", "rest"]
"""`data`: reading batches and bringing them to the device. `forward`: the model. `moments`: of what
the layers see, and merging them. `collectives`: exchanging with other ranks; `waiting`: until they
are there. `rest`: everything else, such as intervals, checks and progress."""

KINDS: tuple[Kind, ...] = ("data", "forward", "moments", "collectives", "waiting", "rest")


@dataclass(frozen=True)
class Spent:
    """What the wall time of one process went into, by kind; the fields add up to it.

    In seconds, or in shares of the whole.
    """

    data: float = 0.0
    forward: float = 0.0
    moments: float = 0.0
    collectives: float = 0.0
    waiting: float = 0.0
    rest: float = 0.0

    def of(self, kind: Kind) -> float:
        """The part of that kind."""
        part: float = getattr(self, kind)
        return part

    @property
    def whole(self) -> float:
        """All kinds together."""
        return float(sum(astuple(self)))

    @property
    def shares(self) -> Spent:
        """The parts of the whole, 0 to 1. Nothing but rest where there was no time at all."""
        whole = self.whole
        return Spent(*(part / whole for part in astuple(self))) if whole > 0 else Spent(rest=1.0)

    @property
    def largest(self) -> Kind:
        """The kind that took most."""
        return max(KINDS, key=self.of)


@dataclass(frozen=True)
class RunTime:
    """The time of a run: `wall_seconds` of the slowest rank, for `samples` samples of all ranks.

    `seconds`: by kind, the mean over ranks; `ranks`: each rank's own, in their order, one where
    there is one process. `clock`: on a GPU the time is the device's: what its stream worked on, or
    waited for.
    """

    wall_seconds: float
    samples: int
    samples_per_second: float
    seconds: Spent
    ranks: tuple[Spent, ...]
    clock: Literal["host", "device"] = "host"

    @classmethod
    def of(
        cls, ranks: Sequence[Spent], samples: int, clock: Literal["host", "device"] = "host"
    ) -> RunTime:
        """From what each rank spent, at least one."""
        wall = max(spent.whole for spent in ranks)
        parts = zip(*map(astuple, ranks), strict=True)
        return cls(
            wall_seconds=wall,
            samples=samples,
            samples_per_second=samples / wall if wall > 0 else 0.0,
            seconds=Spent(*(sum(part) / len(ranks) for part in parts)),
            ranks=tuple(ranks),
            clock=clock,
        )
