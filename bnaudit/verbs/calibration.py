"""The calibration: which samples, by which method, and whether memory allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import torch
from torch import Tensor, nn

from bnaudit.engine.batches import Batch, content_hashes, map_tensors
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.exact import exact
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.memory import SHARE, free_memory, in_words
from bnaudit.engine.population import Calibration, Result, Rule, Statistics
from bnaudit.engine.sequential import sequential
from bnaudit.engine.state import reseed
from bnaudit.engine.train_mode import ema, precise
from bnaudit.engine.trial import Trial, try_out
from bnaudit.errors import InputError
from bnaudit.results import MemoryEstimate, Method
from bnaudit.stats.moments import merge, pool
from bnaudit.stats.shift import channel_mean, gamma_weighted_mean, mixed, squared_shift
from bnaudit.verbs.samples import MapReader, Reader

SLACK = 1.1
"""What allocators add to the bytes of tensors."""

HELD = 0.25
"""A data set that fills more of the host's free memory than this is read again for every pass."""


@dataclass(frozen=True)
class Choice:
    """What the user chose about the method. `all_samples`: none may be left out for memory's sake;
    `max_memory` in bytes; `momentum` is for ema."""

    method: Method = "exact"
    momentum: float | None = None
    prior: float = 0.0
    above: float | None = None
    max_memory: int | None = None
    all_samples: bool = False


class MixingRule:
    """The new statistics of a layer: mixed with its own at the prior's strength, or not at all
    where its output shift against them is not above a threshold.

    `weight` is on the new ones; `below` collects the layers that were left alone.
    """

    def __init__(self, own: dict[BNLayer, Statistics], weight: float, above: float | None) -> None:
        self._own, self._weight, self._above = own, weight, above
        self.below: set[BNLayer] = set()

    def __call__(self, layer: BNLayer, mean: Tensor, var: Tensor) -> Statistics | None:
        """Statistics in float64."""
        if self._above is not None:
            squared = squared_shift(mean, var, *self._own[layer], layer.eps or 0.0).total
            shift = float(gamma_weighted_mean(squared, layer.gamma())) ** 0.5
            if not shift > self._above:  # γ = 0 in every channel has none
                self.below.add(layer)
                return None
            self.below.discard(layer)
        return mixed((mean, var), self._own[layer], self._weight)


@dataclass
class Batches:
    """The calibration data, to be gone through several times; they hash themselves on the way.

    `before_reading` makes random transforms draw the same, where the data are read each time.
    """

    source: Iterable[Batch]
    groups: int
    samples: int
    before_reading: Callable[[], None] = lambda: None
    hashes: set[bytes] = field(default_factory=set)
    read: int = 0

    def __iter__(self) -> Iterator[Batch]:
        """A batch's samples are counted and hashed the first time."""
        self.before_reading()
        for number, batch in enumerate(self.source):
            if number >= self.read:
                self.hashes.update(content_hashes(batch))
                self.read = number + 1
            yield batch


@dataclass(frozen=True)
class Plan:
    """What will run on which data. `reader` is the one that reads them, or read them."""

    method: Method
    trial: Trial
    batches: Batches
    reader: Reader
    memory: MemoryEstimate | None
    notes: tuple[str, ...]

    @property
    def by_layer(self) -> bool:
        """Whether the statistics are those of the corrected condition, settled layer by layer."""
        return self.method in ("exact", "sequential")


def make_plan(
    model: nn.Module,
    layers: list[BNLayer],
    reader: Reader,
    conditions: Conditions,
    choice: Choice,
    say: Callable[[str], None],
) -> Plan:
    """Try a few samples, settle method and size, and hold the data. Inside `conditions.entered`."""
    stream: list[Batch] | None = None
    if isinstance(reader, MapReader):
        first, samples = next(iter(reader)), reader.samples or 0
    else:
        stream = _pooled(reader)
        if not stream:
            raise InputError("the data gave no batch: nothing to calibrate on")
        first, samples = stream[0], sum(batch.size for batch in stream)
    trial = try_out(model, layers, first, conditions)
    method, memory, notes = choice.method, None, []
    if method == "exact":
        memory = memory_estimate(trial, first, samples, conditions, choice.max_memory)
        fitting = fitting_samples(memory, trial, first)
        needs = _needs(memory, samples)
        if fitting >= samples:
            say(f"exact: {needs}")
        elif choice.all_samples or fitting < first.size:
            notes.append(f"{needs}: too much, so layer by layer instead")
            method, memory = "sequential", None
        else:
            reader, stream = _fewer(reader, stream, fitting)
            samples = fitting if stream is None else sum(batch.size for batch in stream)
            what = "a random subset of" if stream is None else "the loader's first"
            notes.append(f"{needs}: too much, so {what} {samples:,}")
            memory = memory_estimate(trial, first, samples, conditions, memory.limit)
        for note in notes:
            say(note)
    batches = _hold(reader, stream, first, samples, method, conditions)
    return Plan(method, trial, batches, reader, memory, tuple(notes))


def _fewer(
    reader: Reader, stream: list[Batch] | None, samples: int
) -> tuple[Reader, list[Batch] | None]:
    """As many samples: drawn anew from a data set, the first batches of a stream."""
    if isinstance(reader, MapReader):
        return replace(reader, samples=samples, skipped=[], notes=[]), None
    assert stream is not None
    return reader, first_samples(stream, samples)


def _needs(memory: MemoryEstimate, samples: int) -> str:
    return (
        f"the activations of {samples:,} samples take about {in_words(memory.needed)} at once, of "
        f"{in_words(memory.limit)} on {memory.device} that may be used"
    )


def memory_estimate(
    trial: Trial, first: Batch, samples: int, conditions: Conditions, limit: int | None
) -> MemoryEstimate:
    """What `exact` would hold of `samples` samples; `limit` in bytes, None: what is free."""
    device = conditions.device
    per_sample = int(SLACK * trial.live_bytes) + _bytes_of(first)
    extra = int(SLACK * max(0, trial.peak_bytes - trial.live_bytes)) * first.size
    limit = limit if limit is not None else int(SHARE * free_memory(device))
    return MemoryEstimate(per_sample, per_sample * samples + extra, limit, str(device))


def fitting_samples(memory: MemoryEstimate, trial: Trial, first: Batch) -> int:
    """How many samples' activations the limit allows."""
    extra = int(SLACK * max(0, trial.peak_bytes - trial.live_bytes)) * first.size
    return max(0, (memory.limit - extra) // max(1, memory.per_sample))


def _bytes_of(batch: Batch) -> int:
    """Of one sample's data, on average."""
    sizes: list[int] = []

    def add(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    map_tensors(add, batch.data)
    return sum(sizes) // max(1, batch.size)


def _hold(
    reader: Reader,
    stream: list[Batch] | None,
    first: Batch,
    samples: int,
    method: Method,
    conditions: Conditions,
) -> Batches:
    """The data in memory, or read again for every pass where there are too many."""
    seed, device = conditions.seed, conditions.device
    if stream is not None:
        groups = 1 + max(int(batch.groups.max()) for batch in stream)
        return Batches(stream, groups, samples)
    large = _bytes_of(first) * samples > HELD * free_memory(torch.device("cpu"))
    if method != "exact" and large:
        return Batches(reader, reader.groups, samples, partial(reseed, seed, device))
    batches = list(reader)
    return Batches(batches, reader.groups, sum(batch.size for batch in batches))


def _pooled(reader: Reader) -> list[Batch]:
    """A stream, read to its end, its fine groups pooled into as many as its size allows."""
    batches = list(reader)
    samples = sum(batch.size for batch in batches)
    if not samples:
        return []
    final = reader.final_groups(samples)
    return [Batch(batch.index, batch.data, final[batch.groups]) for batch in batches]


def first_samples(batches: list[Batch], samples: int) -> list[Batch]:
    """As many whole batches as hold at most so many samples, at least one; groups from 0 on."""
    kept: list[Batch] = []
    count = 0
    for batch in batches:
        if kept and count + batch.size > samples:
            break
        kept.append(batch)
        count += batch.size
    used = sorted({group for batch in kept for group in batch.groups.tolist()})
    rank = {group: i for i, group in enumerate(used)}
    return [
        Batch(b.index, b.data, torch.tensor([rank[g] for g in b.groups.tolist()], device="cpu"))
        for b in kept
    ]


def own_statistics(layers: Iterable[BNLayer]) -> dict[BNLayer, Statistics]:
    """A copy of what the layers normalise by now, in float64 on the CPU."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to("cpu", torch.float64, copy=True)

    return {
        layer: (copy(layer.estimated[0]), copy(layer.estimated[1]))
        for layer in layers
        if layer.role == "estimated"
    }


APART = 1e-3
"""Beyond this ESM between what layers saw in lockstep and what they see in single forwards, the
forwards influenced each other; rounding gives 1e-6, bfloat16 1e-4."""


def in_lockstep_as_alone(found: Result, records: dict[str, LayerRecord]) -> bool:
    """Whether single forwards (`records`) show each layer what it saw when all ran together."""
    for layer, population in found.populations.items():
        record = records.get(layer.name)
        if record is None or not record.sites or not bool(population.groups.count.any()):
            continue
        together = pool(population.groups)
        alone = pool(reduce(merge, [site.groups for site in record.sites]))
        shift = squared_shift(
            alone.mean[0], alone.var[0], together.mean[0], together.var[0], layer.eps or 0.0
        )
        if float(channel_mean(shift.total)) > APART**2:
            return False
    return True


def calibrate(
    model: nn.Module,
    layers: list[BNLayer],
    plan: Plan,
    conditions: Conditions,
    rule: Rule,
    choice: Choice,
    progress: Callable[[int], None],
) -> Result:
    """Run the plan's method. Inside `conditions.entered`."""
    work = Calibration(model, layers, plan.batches, plan.batches.groups, conditions, rule, progress)
    if plan.method == "exact":
        return exact(work, plan.trial)
    if plan.method == "sequential":
        return sequential(work, plan.trial)
    if plan.method == "precise":
        return precise(work)
    return ema(work, choice.momentum)
