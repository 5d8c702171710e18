"""The statistics of each domain, and those of all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bnaudit.engine.batches import slice_batch
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.results import Estimate
from bnaudit.results.domains import POOLED, LayerDistance
from bnaudit.stats.between_domains import distance, plain_distance
from bnaudit.stats.moments import Moments
from bnaudit.verbs.calibration import Batches
from bnaudit.verbs.exact_statistics import ExactStatistics
from bnaudit.verbs.figures import estimate_of, noise_floor
from bnaudit.verbs.sources import Source
from bnaudit.verbs.streams import StreamReader


@dataclass(frozen=True)
class Together:
    """The batches of several domains in turn, at most `most` samples of each."""

    parts: Sequence[Batches]
    most: int

    def __iter__(self) -> Iterator[Any]:
        """Their data, without groups: these are dealt anew over all."""
        streams = [_first(part, self.most) for part in self.parts]
        while streams:
            for stream in list(streams):
                try:
                    yield next(stream)
                except StopIteration:
                    streams.remove(stream)


def _first(batches: Batches, samples: int) -> Iterator[Any]:
    left = samples
    for batch in batches:
        taken = min(left, batch.size)
        if taken:
            yield slice_batch(batch.data, 0, taken, batch.size)
        left -= taken
        if not left:
            return


def pooled_source(parts: Sequence[ExactStatistics]) -> tuple[Source, tuple[str, ...]]:
    """The calibration data of all domains, in equal parts where that leaves enough; and notes.

    A pool smaller than a domain's own sample would lose to it by its noise alone, so there are at
    least as many samples in it as the largest domain has: see `most_of_each`.
    """
    sizes = [part.samples for part in parts]
    most = most_of_each(sizes)
    stream = Together([part.plan.batches for part in parts], most)
    name, notes = f"{most:,} samples of each of {len(parts)} domains", tuple[str, ...]()
    if most > min(sizes):
        name = f"up to {name}"
        notes = (
            f"the domains have {min(sizes):,} to {max(sizes):,} samples; up to {most:,} of each "
            "are taken, so that no domain's own statistics come from more samples than these: "
            "the small domains have less say in them",
        )
    size = parts[0].info.batch_size
    return Source(StreamReader(stream, None, size, POOLED), name), notes


def most_of_each(sizes: Sequence[int]) -> int:
    """The smallest m, from the smallest size on, with Σ min(size, m) ≥ the largest size."""
    low, high, enough = min(sizes), max(sizes), max(sizes)
    while low < high:
        middle = (low + high) // 2
        if sum(min(size, middle) for size in sizes) >= enough:
            high = middle
        else:
            low = middle + 1
    return low


def layer_distances(
    subject: Subject, parts: Sequence[ExactStatistics], pairs: Sequence[tuple[int, int]]
) -> tuple[LayerDistance, ...]:
    """How far apart each layer's statistics are between the two domains of each pair."""
    order = list(parts[0].calls)
    layers = sorted(
        (layer for layer in subject.layers if all(layer in part.populations for part in parts)),
        key=lambda layer: order.index(layer.name) if layer.name in order else len(order),
    )
    found = []
    for layer in layers:
        gamma = layer.gamma()
        seen = [part.populations[layer] for part in parts]
        estimates = tuple(_distance(seen[i], seen[j], layer, gamma) for i, j in pairs)
        found.append(LayerDistance(layer.name, layer.channels, estimates))
    return tuple(found)


def _distance(first: Moments, second: Moments, layer: BNLayer, gamma: Tensor) -> Estimate | None:
    eps = layer.eps or 0.0
    plain = plain_distance(first, second, eps, gamma)
    if plain != plain:  # γ = 0 in every channel
        return None
    return estimate_of(plain, distance(first, second, eps, gamma))


def worst_noise(found: ExactStatistics) -> tuple[float, str] | None:
    """The largest noise floor of these statistics, and its layer; None where it is not known."""
    floors = [
        (floor, layer.name)
        for layer, groups in found.populations.items()
        if (floor := noise_floor(groups, layer.eps or 0.0)) is not None
    ]
    return max(floors) if floors else None
