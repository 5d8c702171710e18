"""Ranks that work on one model: that it is one, and what they bring to one place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bnaudit.engine.batches import Batch
from bnaudit.engine.books import estimated_of
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.engine.ranks import Ranks
from bnaudit.engine.state import Applied
from bnaudit.errors import ModelError
from bnaudit.stats.scattered import scattered_values


@contextmanager
def in_step(subject: Subject) -> Iterator[None]:
    """Inside, every rank's layers have the first rank's estimates; their own return afterwards.

    Training leaves each rank with running statistics of its own. Raises `ModelError` where
    anything else in the models differs.
    """
    ranks = subject.conditions.ranks
    if ranks.size == 1:
        yield
        return
    _check_same(subject, ranks)
    with Applied(of_first_rank(subject.layers, ranks)):
        yield


def of_first_rank(layers: Iterable[BNLayer], ranks: Ranks) -> dict[BNLayer, Statistics]:
    """The first rank's estimates of all layers that have any; nothing where there is one rank."""
    if ranks.size == 1:
        return {}
    own = {layer.name: layer for layer in layers if layer.role == "estimated"}
    theirs = ranks.from_first(lambda: {name: estimated_of(layer) for name, layer in own.items()})
    return {own[name]: statistics for name, statistics in theirs.items()}


def _check_same(subject: Subject, ranks: Ranks) -> None:
    """By some values of every tensor: another seed or checkpoint changes nearly all of them."""
    estimates = {
        id(buffer) for layer in subject.layers for buffer in layer.module.buffers(recurse=False)
    }
    state = subject.model.state_dict(keep_vars=True)
    own = {
        name: _digest(t)
        for name, t in state.items()
        if isinstance(t, Tensor) and id(t) not in estimates
    }
    first, *others = ranks.gather(own)
    for rank, theirs in enumerate(others, start=1):
        names = [name for name in {**first, **theirs} if first.get(name) != theirs.get(name)]
        if names:
            raise ModelError(
                f"ranks 0 and {rank} do not have the same model: {names[0]} differs"
                f"{f', and {len(names) - 1} more' if names[1:] else ''}; load one checkpoint on "
                "all, or call torch.manual_seed where the model is built"
            )


def _digest(tensor: Tensor) -> str:
    values = scattered_values(tensor, batched=False)
    data = (
        values.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        if (values is not None)
        else b""
    )
    described = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.blake2b(described + data, digest_size=16).hexdigest()


def to_first_rank(batches: Iterable[Batch], samples: int, ranks: Ranks) -> list[Batch]:
    """The batches with the first so many samples, in their order, on the first rank alone."""
    own = []
    for batch in batches:
        if batch.first >= samples:
            break
        own.append(batch)
    return sorted((b for part in ranks.to_first(own) for b in part), key=lambda b: b.index)
