"""A lineage as figures for people and programs: what an Inspection holds of it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from bnaudit.results.lineage import LayerLineage, Lineage, Mixture, Statistics, WeightChange


@dataclass(frozen=True)
class ComparedLayer:
    """One BatchNorm layer beside the parent's.

    `distance`: of the statistics, RMS over channels in standard deviations, as `Distance` has it;
    `mean_part`, `scale_part`: its parts; `output_distance`: weighted by γ², which findings judge.
    Changes of weights are relative, ‖child − parent‖/‖parent‖: `own_change` of the tensors that
    feed the layer, `gamma_change`, `beta_change` of its affine map, `upstream_change` of everything
    before it, `largest_upstream_change` of the stretch of it that changed most; the last two are
    None where the files keep no order of tensors. A change is None, in JSON, where it is infinite:
    the parent's were zeros, or values became infinite. The rest is as in `LayerLineage`.
    """

    name: str
    parent_name: str
    channels: int
    statistics: Statistics
    reset: bool
    distance: float | None
    mean_part: float | None
    scale_part: float | None
    output_distance: float | None
    own_change: float | None
    gamma_change: float | None
    beta_change: float | None
    upstream_change: float | None
    largest_upstream_change: float | None
    n_before: float | None
    n_after: float | None
    dtype_before: str
    dtype_after: str
    mixture: Mixture | None = None


@dataclass(frozen=True)
class ComparedWeights:
    """All weights beside the parent's, statistics and counts left out.

    `elements` compared, `changed_share` of them, `relative_change` of all together; `infinite`: how
    many of them became infinite; `sparsity`: share of exact zeros; `distinct`: see
    `NetworkLineage`; `shares` of the parents, where the weights are a mixture of several.
    """

    elements: int
    changed_share: float
    relative_change: float | None
    infinite: int
    sparsity_before: float
    sparsity_after: float
    distinct_before: float | None
    distinct_after: float | None
    shares: tuple[float, ...] | None


@dataclass(frozen=True)
class Comparison:
    """A child beside its parents; figures are against `parent`, the nearest of them.

    `key`: the place of the weights in the file of `parent`, "" for the top level. `ordered`:
    whether the files keep the order of the network. Names of tensors only in the child (`added`),
    only in the parent (`removed`), of another shape (`reshaped`), of another type (`retyped`);
    `added_layers`, `removed_layers`, `resized_layers`: of BatchNorm layers.
    """

    parent: str
    parents: tuple[str, ...]
    key: str
    ordered: bool
    weights: ComparedWeights
    layers: tuple[ComparedLayer, ...]
    statistics_equal: bool
    weights_equal: bool
    averaged: tuple[str, ...]
    recalibrated: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reshaped: tuple[str, ...]
    retyped: tuple[str, ...]
    added_layers: tuple[str, ...]
    removed_layers: tuple[str, ...]
    resized_layers: tuple[str, ...]


def comparison(lineage: Lineage) -> Comparison:
    """The figures of a lineage."""
    network = lineage.network
    return Comparison(
        parent=lineage.parent.source,
        parents=tuple(parent.source for parent in lineage.parents),
        key=lineage.keys[lineage.nearest],
        ordered=network.ordered,
        weights=_weights(lineage),
        layers=tuple(_layer(layer) for layer in lineage.layers),
        statistics_equal=lineage.statistics_equal,
        weights_equal=lineage.weights_equal,
        averaged=network.averaged,
        recalibrated=network.recalibrated,
        added=network.added,
        removed=network.removed,
        reshaped=network.reshaped,
        retyped=network.retyped,
        added_layers=lineage.added,
        removed_layers=lineage.removed,
        resized_layers=lineage.resized,
    )


def _weights(lineage: Lineage) -> ComparedWeights:
    network = lineage.network
    change = network.weights
    return ComparedWeights(
        elements=change.elements,
        changed_share=_share(change.changed, change),
        relative_change=change.relative,
        infinite=change.infinite,
        sparsity_before=_share(change.zeros_before, change),
        sparsity_after=_share(change.zeros_after, change),
        distinct_before=network.distinct_before,
        distinct_after=network.distinct_after,
        shares=network.shares,
    )


def _share(count: int, of: WeightChange) -> float:
    return count / of.elements if of.elements else 0.0


def _layer(layer: LayerLineage) -> ComparedLayer:
    distance, upstream = layer.distance, layer.upstream
    return ComparedLayer(
        name=layer.name,
        parent_name=layer.parent_name,
        channels=layer.channels,
        statistics=layer.statistics,
        reset=layer.reset,
        distance=distance.total,
        mean_part=distance.mean_part,
        scale_part=distance.scale_part,
        output_distance=layer.output_distance.total,
        own_change=layer.own.relative,
        gamma_change=layer.gamma.relative,
        beta_change=layer.beta.relative,
        upstream_change=None if upstream is None else upstream.relative,
        largest_upstream_change=layer.largest_upstream,
        n_before=layer.n_before,
        n_after=layer.n_after,
        dtype_before=layer.dtype_before,
        dtype_after=layer.dtype_after,
        mixture=layer.mixture,
    )
