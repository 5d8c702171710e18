"""`measure`: a model and data in, the state of every BatchNorm layer out. The Python API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import Dataset

from bnaudit.config.defaults import BATCH_SIZE, SAMPLES
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import find_layers
from bnaudit.engine.ranks import TIMEOUT, joined
from bnaudit.engine.wrappers import unwrap
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results import Audit, ModelInfo
from bnaudit.verbs import attribution
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.in_step import in_step
from bnaudit.verbs.measurement import measure_with
from bnaudit.verbs.running import conditions_for
from bnaudit.verbs.samples import check_positive
from bnaudit.verbs.sources import Source, reader_of

DEFAULT_BATCH_SIZE = BATCH_SIZE

DEFAULT_SAMPLES = SAMPLES
"""How many samples the command line draws unless told otherwise."""


def measure(
    model: nn.Module,
    data: Dataset[Any] | Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    compare: Callable[[Any, Any], float | Mapping[str, float]] | None = None,
    task: Literal["auto", "classification", "other"] = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    train_batch_size: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: Literal["float32", "bf16", "fp16"] = "float32",
    channels_last: bool = False,
    attribute: int | Literal["all", "none"] = attribution.DEFAULT_SAMPLES,
    train_data: Dataset[Any] | Iterable[Any] | None = None,
    policy: Policy = DEFAULT,
    progress: Bar | None = None,
    ranks: Literal["all", "alone"] = "all",
    rank_timeout: float = TIMEOUT,
) -> Audit:
    """Measure every BatchNorm layer of `model` on `data`, and leave the model as it was.

    Args:
        model: any eager module, in any mode and on any device; wrappers are looked through.
        data: a map-style Dataset, from which `samples` (default: all) are drawn and read in a
            seeded random order; or any iterable of batches, such as a DataLoader, read as it
            comes: let it shuffle. A batch is a tensor, an (inputs, labels) pair or a dict; write
            a list of images of different sizes as (images,) or (images, targets).
        forward: called as forward(model, batch); default model(inputs).
        compare: for outputs that are no class scores: compare(deployed_output, other_output) gives
            a figure or a dict of figures for a mini-batch.
        task: "classification" for outputs (N, K); "auto" decides by the first output.
        batch_size: samples a forward, for a Dataset.
        train_batch_size: the mini-batch size of the discrepancy; default: the batches' size.
        samples: at most so many are read; None reads all.
        seed: of the sample order and of everything random inside.
        workers: processes that load a Dataset.
        device: where to run, e.g. "cuda"; default: where the model is.
        dtype: "bf16" and "fp16" run under autocast; moments are accumulated in float32 or better.
        channels_last: run in that memory format.
        attribute: own and inherited shift of each layer, and how few layers matter, on the first
            so many samples read; "none" saves about half of the time.
        train_data: what the model was trained on: tells wrong estimates from data that moved.
        policy: which findings are wanted, and their thresholds (`bnaudit.Policy`).
        progress: called as progress(what, total, unit), gives a context of `advance(done)`.
        ranks: where torch.distributed is initialised, "all" of its ranks call this and share the
            work: a Dataset, or a DataLoader over one, is dealt to them in a seeded random order;
            other iterables are each rank's own part. Every rank gets the same Audit. "alone": this
            process does it all.
        rank_timeout: seconds that a rank waits for the others.

    Returns:
        The Audit: `audit.findings`, `audit.layers`, `audit.network`, `audit.to_frame()`; shifts in
        standard deviations of the normalised activation (Huang et al. 2022, normalised form).

    Raises:
        ModelError: the model cannot be audited, or cannot take the data.
        NonFiniteError: an activation is NaN or infinite; names the layer and the batch.
        InputError: the data are empty, or labels and outputs do not fit.
        RankError: another rank failed, or is gone.

    Example:
        >>> audit = bnaudit.measure(model, loader)  # doctest: +SKIP
        >>> audit.to_frame()[["name", "total_shift", "batch_noise"]]  # doctest: +SKIP
    """
    inner = unwrap(model)
    with joined(ranks, rank_timeout) as together:
        check_positive("train_batch_size", train_batch_size)
        check_positive("batch_size", batch_size)
        conditions = conditions_for(inner, forward, device, dtype, channels_last, seed, together)
        where, size = conditions.device, pass_batch_size(batch_size, train_batch_size)
        reader = reader_of(data, size, samples, seed, workers, where, together)
        train = None
        if train_data is not None:
            trained = reader_of(train_data, size, samples, seed, workers, where, together)
            train = Source(trained, f"{type(train_data).__name__} object")
        with in_step(Subject(inner, find_layers(inner), conditions)):
            return measure_with(
                model,
                reader,
                conditions,
                model_info=ModelInfo(type(inner).__qualname__, parameters=0, bn_layers={}),
                data_source=f"{type(data).__name__} object",
                train_batch_size=train_batch_size,
                task=task,
                compare=compare,
                attribute=attribute,
                train=train,
                policy=policy,
                progress=progress if progress is not None and together.is_first else no_bar,
            )


def pass_batch_size(batch_size: int, train_batch_size: int | None) -> int:
    """The batch size of the pass, a multiple of the mini-batch size: batches hold whole ones."""
    if train_batch_size is None:
        return batch_size
    return max(train_batch_size, batch_size - batch_size % train_batch_size)
