"""What happened between two checkpoints of one network, as figures. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bnaudit.results.state import State

Statistics = Literal["equal", "rounded", "moved"]
"""A layer's statistics beside the parent's: every bit the same; the same but for being stored in
half precision; others."""

MixedWith = Literal["initial", "zero-batches", "parents"]


@dataclass(frozen=True)
class Distance:
    """How far a layer's statistics lie from the parent's, in the units of the estimation shift.

    The shift of the child's estimates if the parent's statistics were the expected ones: RMS over
    the channels, in standard deviations of the child's normalised activation. total² = mean_part² +
    scale_part². NaN where no channel that counts is defined.
    """

    total: float
    mean_part: float
    scale_part: float


@dataclass(frozen=True)
class WeightChange:
    """How tensors of the child differ from the parent's; two of them add up.

    `elements` compared, `changed` of them; what only rounding to half precision explains is not
    changed. `squares`: Σ(child − parent)², `parent_squares`: Σ parent². `zeros_before`,
    `zeros_after`: exact zeros. `unmatched`: tensors that only one side has, or in another shape.
    `infinite`: elements that were finite and became infinite, as values do that half precision has
    no room for; they are changed.
    """

    elements: int = 0
    changed: int = 0
    squares: float = 0.0
    parent_squares: float = 0.0
    zeros_before: int = 0
    zeros_after: int = 0
    unmatched: int = 0
    infinite: int = 0

    def __add__(self, other: WeightChange) -> WeightChange:
        return WeightChange(
            self.elements + other.elements,
            self.changed + other.changed,
            self.squares + other.squares,
            self.parent_squares + other.parent_squares,
            self.zeros_before + other.zeros_before,
            self.zeros_after + other.zeros_after,
            self.unmatched + other.unmatched,
            self.infinite + other.infinite,
        )

    @property
    def relative(self) -> float:
        """‖child − parent‖ / ‖parent‖; infinite where the parent's tensors are all zero."""
        if self.squares == 0:
            return 0.0
        if not math.isfinite(self.squares) or not self.parent_squares:
            return math.inf
        return math.sqrt(self.squares / self.parent_squares)

    @property
    def equal(self) -> bool:
        """Whether the same tensors hold the same values."""
        return not self.changed and not self.unmatched


@dataclass(frozen=True)
class Mixture:
    """Statistics that are a mixture of the parent's and something else, found by least squares.

    `kind`: of what. "initial": with mean 0 and variance 1. "zero-batches": with mean 0 and variance
    0, as a batch of zeros has them, or with variance 0 alone; the share of the parent is
    (1 − momentum)^batches then. "parents": of the parents. `shares`: of the parent and of the
    other; of every parent where they are mixed. `residual`: how far the mixture is from the child's
    statistics, as a `Distance`'s total, pruned channels left out.
    """

    kind: MixedWith
    shares: tuple[float, ...]
    residual: float
    batches: int | None = None
    momentum: float | None = None


@dataclass(frozen=True)
class LayerLineage:
    """One BatchNorm layer in both checkpoints.

    `reset`: the child has mean 0 and variance 1 exactly in every channel and the parent has not.
    `distance`: over all channels alike; `output_distance`: weighted by γ², which is what findings
    judge; as `distance` where γ is absent or 0 everywhere.
    `own`: the tensors that feed it, other BatchNorm layers left out; `affine`: its gamma and beta
    together, as well as one by one. `upstream`: everything before the layer, its own tensors and
    other layers' gamma and beta included; `largest_upstream`: the largest relative change in one
    stretch of it, for a change of few tensors drowns in the whole. Both None where the order of the
    tensors is not known. `n_before`, `n_after`: num_batches_tracked, None where not stored.
    """

    name: str
    parent_name: str
    channels: int
    statistics: Statistics
    reset: bool
    distance: Distance
    output_distance: Distance
    own: WeightChange
    gamma: WeightChange
    beta: WeightChange
    upstream: WeightChange | None
    largest_upstream: float | None
    n_before: float | None
    n_after: float | None
    dtype_before: str
    dtype_after: str
    mixture: Mixture | None = None

    @property
    def affine(self) -> WeightChange:
        """Gamma and beta as one: where beta is near 0 its relative change says little."""
        return self.gamma + self.beta

    @property
    def kept(self) -> bool:
        """Whether the statistics are the parent's, perhaps rounded."""
        return self.statistics in ("equal", "rounded")

    @property
    def passes(self) -> float | None:
        """By how much the counter advanced; None where one of the two is not stored."""
        if self.n_before is None or self.n_after is None:
            return None
        return self.n_after - self.n_before


@dataclass(frozen=True)
class NetworkLineage:
    """What is to be said of all tensors together.

    `added`, `removed`, `reshaped`, `retyped`: names of tensors, BatchNorm's own included.
    `weights`: everything but running statistics and counts. `shares`: of every parent in the
    weights, where these are a mixture of several parents' to within rounding. `distinct_before`,
    `distinct_after`: how many of the values in a row of a weight are different ones, from 0 to 1,
    zeros left out; near 0 where weights lie on a coarse grid; None where no weight changed.
    `averaged`: what in the child speaks of averaged weights. `recalibrated`: whether bnaudit's own
    record of a recalibration lies beside it. `ordered`: whether the order of the tensors is that of
    the network.
    """

    weights: WeightChange
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    shares: tuple[float, ...] | None = None
    distinct_before: float | None = None
    distinct_after: float | None = None
    averaged: tuple[str, ...] = ()
    recalibrated: bool = False
    ordered: bool = True


@dataclass(frozen=True)
class Lineage:
    """A child beside the parent it is nearest to, and how it comes from all of its `parents`.

    `keys`: the place of the weights in each parent's file, "" for the top level.
    `nearest`: which of `parents` the figures of layers and weights compare with: the one of which
    most layers have the statistics, then the one whose weights are nearest. `layers`: those that
    both have, in the child's order. `added`, `removed`, `resized`: BatchNorm layers that only the
    child has, that only the parent has, and those with another number of channels.
    """

    child: State
    parents: tuple[State, ...]
    keys: tuple[str, ...]
    nearest: int
    layers: tuple[LayerLineage, ...]
    network: NetworkLineage
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()

    @property
    def parent(self) -> State:
        """The parent that the figures compare with."""
        return self.parents[self.nearest]

    @property
    def weights_equal(self) -> bool:
        """Whether both hold the same weights."""
        return self.network.weights.equal

    @property
    def statistics_equal(self) -> bool:
        """Whether every BatchNorm layer is in both, with the same statistics."""
        same = all(layer.statistics == "equal" for layer in self.layers)
        return same and not (self.added or self.removed or self.resized)

    def change_before(self, layer: LayerLineage) -> float:
        """The largest relative change of the weights that stand before a layer; NaN for unknown.

        Its own tensors and everything upstream, other layers' gamma and beta included, not its own
        affine map, which its statistics do not see. Where the order of the tensors is not known:
        its own tensors where these changed, else those of all layers.
        """
        if layer.largest_upstream is not None and layer.upstream is not None:
            return math.nan if layer.upstream.unmatched else layer.largest_upstream
        if layer.own.squares:
            return layer.own.relative
        others = [other for other in self.layers if other.name != layer.name]
        every = [layer.own, *(x for other in others for x in (other.own, other.affine))]
        known = not any(change.unmatched for change in every)
        return 0.0 if known and all(change.equal for change in every) else math.nan
