"""What was found about the data and how they come in batches, beside the layers' figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bnaudit.results.change import Change


@dataclass(frozen=True)
class Spread:
    """How far mini-batches differ, against random ones of the same samples.

    `of`: what was compared; "levels" are mean and deviation of each sample's input. `ratio`: the
    variance of the mini-batches' means over what shuffling the same samples gives; `p_value`: of
    the permutation test that it is 1.
    """

    of: Literal["labels", "inputs", "levels"]
    ratio: float
    p_value: float


@dataclass(frozen=True)
class BatchOrder:
    """Whether batches that a loader gave are random draws of their samples."""

    samples: int
    batches: int
    spreads: tuple[Spread, ...]


@dataclass(frozen=True)
class PaddedLayer:
    """A layer over sequences whose ends are padding: its ESM with it and, after, without it.

    `share`: of the positions, 0 to 1.
    """

    layer: str
    share: float
    shift: Change


@dataclass(frozen=True)
class OtherEps:
    """Top-1 accuracy with the layers' own eps and with another, on the same labelled samples.

    `only_own`, `only_other`: samples that only one of them gets right.
    """

    eps: float
    samples: int
    own: float
    other: float
    only_own: int
    only_other: int


@dataclass(frozen=True)
class DataChecks:
    """What was checked of the data; None or nothing where there was nothing to check."""

    order: BatchOrder | None = None
    padding: tuple[PaddedLayer, ...] = ()
    other_eps: OtherEps | None = None
