"""The statistics of each domain, and those of all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnaudit.engine.batches import slice_batch
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.errors import ModelError
from bnaudit.results import DataInfo, Estimate
from bnaudit.results.domains import POOLED, LayerDistance
from bnaudit.stats.between_domains import distance, plain_distance
from bnaudit.stats.moments import Moments
from bnaudit.verbs.calibration import Batches, Choice, calibrate, make_plan
from bnaudit.verbs.figures import estimate_of, noise_floor
from bnaudit.verbs.measurement import none_reached
from bnaudit.verbs.mixing import MixingRule, own_statistics
from bnaudit.verbs.recalibrated_layers import left_alone
from bnaudit.verbs.samples import StreamReader
from bnaudit.verbs.selection import select_layers
from bnaudit.verbs.sources import Source, data_info
from bnaudit.verbs.workbench import Workbench


@dataclass(frozen=True)
class DomainStatistics:
    """Exact statistics on the calibration data of one domain, or of all.

    `populations`: what each layer saw by jackknife group, none empty. `kept`: the layers that have
    no new statistics, and why. `calls`: of each layer in a forward, by its name, in call order.
    `notes`: for the reader, who knows the domain.
    """

    statistics: dict[BNLayer, Statistics]
    populations: dict[BNLayer, Moments]
    kept: dict[BNLayer, str]
    calls: dict[str, int]
    batches: Batches
    info: DataInfo
    notes: tuple[str, ...]

    def completed(self, own: dict[BNLayer, Statistics]) -> dict[BNLayer, Statistics]:
        """The same with the layer's `own` statistics where there are no new ones."""
        return own | self.statistics


def statistics_of(bench: Workbench, source: Source, what: str) -> DomainStatistics:
    """The exact statistics on these data, with what tells how certain they are.

    As `exact_statistics`, which keeps no populations. Inside `conditions.entered(model)`. Raises
    `ModelError` where the forward reaches no layer.
    """
    subject, choice = bench.subject, Choice()
    plan = make_plan(subject, source.reader, choice, _named(what, bench))
    if not plan.trial.calls:
        raise ModelError(none_reached(subject.layers))
    chosen, kept = select_layers(subject.layers, plan.trial, (), frozen=False)
    rule = MixingRule(own_statistics(subject.layers), 1.0, None, _stored(bench))
    with bench.progress(f"statistics: {what}", len(chosen), "layers") as advance:
        found = calibrate(subject, chosen, plan, rule, choice, advance)
    groups = {
        layer: one.groups.select(one.groups.count > 0) for layer, one in found.populations.items()
    }
    info = data_info(
        plan.reader, source.name, plan.batches.samples, source.transform, labelled=plan.labelled
    )
    return DomainStatistics(
        found.statistics,
        {layer: groups[layer] for layer in found.statistics},
        kept | left_alone(chosen, found, rule),
        plan.trial.calls,
        plan.batches,
        info,
        (*plan.notes, *plan.trial.dependence, *found.notes),
    )


def _stored(bench: Workbench) -> dict[str, torch.dtype]:
    """The dtype of each layer's statistics in the file: what is compared is what can be written."""
    dtypes = bench.weights.dtypes if bench.weights is not None else {}
    ending = ".running_var"
    return {n.removesuffix(ending): d for n, d in dtypes.items() if n.endswith(ending)}


def _named(what: str, bench: Workbench) -> Any:
    return lambda line: bench.say(f"{what}: {line}")


@dataclass(frozen=True)
class Together:
    """The batches of several domains in turn, at most `samples` samples of each."""

    parts: Sequence[Batches]
    samples: int

    def __iter__(self) -> Iterator[Any]:
        """Their data, without groups: these are dealt anew over all."""
        streams = [_first(part, self.samples) for part in self.parts]
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


def pooled_source(parts: Sequence[DomainStatistics]) -> Source:
    """The calibration data of all domains, in equal parts: as many samples as the smallest has."""
    least = min(part.batches.samples for part in parts)
    name = f"{least:,} samples of each of {len(parts)} domains"
    size = parts[0].info.batch_size
    return Source(
        StreamReader(Together([p.batches for p in parts], least), None, size, POOLED), name
    )


def layer_distances(
    subject: Subject, parts: Sequence[DomainStatistics], pairs: Sequence[tuple[int, int]]
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


def worst_noise(found: DomainStatistics) -> tuple[float, str] | None:
    """The largest noise floor of these statistics, and its layer; None where it is not known."""
    floors = [
        (floor, layer.name)
        for layer, groups in found.populations.items()
        if (floor := noise_floor(groups, layer.eps or 0.0)) is not None
    ]
    return max(floors) if floors else None
