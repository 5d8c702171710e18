"""What a calibration holds in memory, and how many samples may be held at once."""

from __future__ import annotations

import torch

from bnaudit.engine.batches import Batch, data_bytes
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.memory import SHARE, free_memory, in_words
from bnaudit.engine.ranks import Ranks
from bnaudit.engine.trial import Trial
from bnaudit.results import MemoryEstimate

SLACK = 1.1
"""What allocators add to the bytes of tensors."""

_CPU = torch.device("cpu")

HELD = 0.25
"""A data set that fills more of the host's free memory than this is read again for every pass."""


def memory_estimate(
    trial: Trial, first: Batch, samples: int, conditions: Conditions, limit: int | None
) -> MemoryEstimate:
    """What `exact` would hold of `samples` samples; `limit` in bytes, None: what is free.

    On every rank: those that work on one device share what is free.
    """
    device = conditions.device
    per_sample = int(SLACK * trial.live_bytes) + _bytes_of(first)
    extra = _extra(trial, first)
    if limit is None:
        limit = int(SHARE * free_memory(device) / conditions.ranks.sharing(device))
    return MemoryEstimate(per_sample, per_sample * samples + extra, limit, str(device))


def fitting_samples(memory: MemoryEstimate, trial: Trial, first: Batch) -> int:
    """How many samples' activations the limit allows."""
    return max(0, (memory.limit - _extra(trial, first)) // max(1, memory.per_sample))


def fitting_on_host(first: Batch, samples: int, ranks: Ranks) -> int:
    """How many of the samples' data the host can hold while they are worked on. On every rank."""
    room = int(SHARE * free_memory(_CPU) / ranks.sharing(_CPU))
    return min(samples, room // max(1, _bytes_of(first)))


def is_large(first: Batch, samples: int, ranks: Ranks) -> bool:
    """Whether the data of so many samples are more than a host may hold (`HELD`). On every rank."""
    return _bytes_of(first) * samples > HELD * free_memory(_CPU) / ranks.sharing(_CPU)


def activations_in_words(memory: MemoryEstimate, samples: int) -> str:
    """What an estimate for `samples` samples says."""
    of = f"{samples:,} sample" if samples == 1 else f"{samples:,} samples"
    return (
        f"the activations of {of} take about {in_words(memory.needed)} at once, of "
        f"{in_words(memory.limit)} on {memory.device} that may be used"
    )


def _extra(trial: Trial, first: Batch) -> int:
    """What the one forward that is running needs beside what all of them keep."""
    transient = max(0, trial.peak_bytes - trial.live_bytes) * first.size
    return int(SLACK * (trial.fixed_bytes + transient))


def _bytes_of(batch: Batch) -> int:
    """What one sample's data take, on average."""
    return data_bytes(batch.data) // max(1, batch.size)
