"""The calibration: which samples, by which method, and whether memory allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import torch

from bnaudit.engine.batches import Batch, content_hashes, labels_of
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.exact import exact
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Calibration, Result, Rule
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.engine.sequential import sequential
from bnaudit.engine.state import reseed
from bnaudit.engine.train_mode import ema, precise
from bnaudit.engine.trial import Trial, try_out
from bnaudit.errors import InputError
from bnaudit.results import MemoryEstimate, Method
from bnaudit.stats.moments import merge, pool
from bnaudit.stats.shift import channel_mean, squared_shift
from bnaudit.verbs.calibration_memory import (
    activations_in_words,
    fitting_on_host,
    fitting_samples,
    is_large,
    memory_estimate,
)
from bnaudit.verbs.samples import MapReader, Reader
from bnaudit.verbs.sources import HostRoom


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
    labelled: bool = False

    @property
    def by_layer(self) -> bool:
        """Whether the statistics are those of the corrected condition, settled layer by layer."""
        return self.method in ("exact", "sequential")


def make_plan(subject: Subject, reader: Reader, choice: Choice, say: Callable[[str], None]) -> Plan:
    """Try a few samples, settle method and size, and hold the data. Inside `conditions.entered`.

    Every rank has a plan of its own part; what is decided is the same on all.
    """
    conditions, ranks = subject.conditions, reader.ranks
    stream = None if isinstance(reader, MapReader) else _pooled(reader)
    with ranks.as_one():
        own = next(iter(reader), None) if stream is None else next(iter(stream), None)
    first = ranks.first_of(own)
    if first is None:
        raise InputError("the data gave no batch: nothing to calibrate on")
    samples = _samples(reader, stream)
    trial = try_out(subject.model, subject.layers, first, conditions)
    trial = ranks.from_first(lambda: trial)
    method, memory, notes = choice.method, None, []
    if method == "exact":
        share = largest_share(reader, stream, samples)
        memory = memory_estimate(trial, first, share, conditions, choice.max_memory)
        memory = min(ranks.gather(memory), key=lambda one: one.limit - one.needed)
        fitting = fitting_samples(memory, trial, first)
        fitting = min(ranks.gather(min(fitting, fitting_on_host(first, share, ranks))))
        needs = activations_in_words(memory, share)
        if fitting >= share:
            say(f"exact: {needs}")
        elif choice.all_samples or fitting < _fewest(reader, first):
            notes.append(f"{needs}: too much, so layer by layer instead")
            method, memory = "sequential", None
        else:
            reader, stream = _fewer(reader, stream, fitting)
            samples = _samples(reader, stream)
            what = "a random subset of" if stream is None else "the loader's first"
            notes.append(f"{needs}: too much, so {what} {samples:,}")
            share = largest_share(reader, stream, samples)
            memory = memory_estimate(trial, first, share, conditions, memory.limit)
        for note in notes:
            say(note)
    batches = _hold(reader, stream, first, method, conditions)
    if method in ("precise", "ema"):
        notes.append(f"{method} depends on the batch size, {first.size:,} here")
    labelled = labels_of(first.data) is not None
    return Plan(method, trial, batches, reader, memory, tuple(notes), labelled)


def _fewest(reader: Reader, first: Batch) -> int:
    """The fewest samples that a rank can be left with: several ranks have whole batches."""
    if isinstance(reader, MapReader) and reader.ranks.size > 1:
        return reader.batch_size
    return first.size


def _samples(reader: Reader, stream: list[Batch] | None) -> int:
    """How many samples all ranks have together."""
    if isinstance(reader, MapReader):
        return reader.samples or 0
    return sum(reader.ranks.gather(sum(batch.size for batch in stream or ())))


def largest_share(reader: Reader, stream: list[Batch] | None, samples: int) -> int:
    """The most of `samples` samples that one rank has."""
    if isinstance(reader, MapReader):
        batches = -(-samples // reader.batch_size)
        return min(samples, -(-batches // reader.ranks.size) * reader.batch_size)
    return max(reader.ranks.gather(sum(batch.size for batch in stream or ())))


def _fewer(
    reader: Reader, stream: list[Batch] | None, samples: int
) -> tuple[Reader, list[Batch] | None]:
    """As many samples a rank: drawn anew from a data set, the first batches of a stream."""
    if isinstance(reader, MapReader):
        if reader.ranks.size > 1:  # whole batches
            samples -= samples % reader.batch_size
        return replace(reader, samples=samples * reader.ranks.size, notes=[]), None
    assert stream is not None
    return reader, first_samples(stream, samples, ALONE)


def _hold(
    reader: Reader,
    stream: list[Batch] | None,
    first: Batch,
    method: Method,
    conditions: Conditions,
) -> Batches:
    """The data in memory, or read again for every pass where there are too many."""
    seed, device, ranks = conditions.seed, conditions.device, reader.ranks
    if stream is not None:
        groups = 1 + max(ranks.gather(max((int(b.groups.max()) for b in stream), default=0)))
        return Batches(stream, groups, _samples(reader, stream))
    assert isinstance(reader, MapReader)
    samples = reader.samples or 0
    large = is_large(first, largest_share(reader, None, samples), ranks)
    if method != "exact" and any(ranks.gather(large)):
        return Batches(reader, reader.groups, samples, partial(reseed, seed, device))
    with ranks.as_one():
        batches = list(reader)
    return Batches(batches, reader.groups, sum(ranks.gather(sum(b.size for b in batches))))


def _pooled(reader: Reader) -> list[Batch]:
    """A stream, read to its end, its fine groups pooled into as many as its size allows."""
    batches, room = [], HostRoom(reader.ranks)
    for batch in reader:
        batches.append(batch)
        room.take(batch.data, batch.size)
    samples = sum(reader.ranks.gather(sum(batch.size for batch in batches)))
    if not samples:
        return []
    final = reader.final_groups(samples)
    return [replace(batch, groups=final[batch.groups]) for batch in batches]


def first_samples(batches: list[Batch], samples: int, ranks: Ranks) -> list[Batch]:
    """As many whole batches as hold at most so many samples, at least one; groups from 0 on.

    Of the batches of all ranks in their order; each rank gets those of its own.
    """
    of_all = [one for part in ranks.gather([(b.index, b.groups) for b in batches]) for one in part]
    kept: set[int] = set()
    used: set[int] = set()
    count = 0
    for index, groups in sorted(of_all, key=lambda one: one[0]):
        if kept and count + len(groups) > samples:
            break
        kept.add(index)
        used.update(groups.tolist())
        count += len(groups)
    rank = {group: i for i, group in enumerate(sorted(used))}
    return [
        replace(b, groups=torch.tensor([rank[g] for g in b.groups.tolist()], device="cpu"))
        for b in batches
        if b.index in kept
    ]


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
    subject: Subject,
    chosen: list[BNLayer],
    plan: Plan,
    rule: Rule,
    choice: Choice,
    progress: Callable[[int], None],
) -> Result:
    """Run the plan's method on the `chosen` layers. Inside `conditions.entered`."""
    model, conditions = subject.model, subject.conditions
    work = Calibration(model, chosen, plan.batches, plan.batches.groups, conditions, rule, progress)
    if plan.method == "exact":
        return exact(work, plan.trial)
    if plan.method == "sequential":
        return sequential(work, plan.trial)
    if plan.method == "precise":
        return precise(work)
    return ema(work, choice.momentum)
