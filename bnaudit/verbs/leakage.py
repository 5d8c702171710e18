"""`leakage`: does a sample's output depend on its batch mates? The Python API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import Dataset

from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import InputError
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results import ModelInfo
from bnaudit.results.leakage import Leakage
from bnaudit.targets.factories import load_factory
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.devices import device_of, usable_device
from bnaudit.verbs.leakage_found import DRAWS, SAMPLES, Wanted, leakage_with
from bnaudit.verbs.leakage_pool import By
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE, autocast
from bnaudit.verbs.samples import check_positive
from bnaudit.verbs.sources import reader_of


def leakage(
    model: nn.Module,
    data: Dataset[Any] | Iterable[Any],
    *,
    by: Sequence[str | By] | str | By | None = None,
    values: Sequence[int] | None = None,
    train_batch_size: int | None = None,
    group_size: int | None = None,
    draws: int = DRAWS,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    task: Literal["auto", "classification", "other"] = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    samples: int | None = SAMPLES,
    seed: int = 0,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: Literal["float32", "bf16", "fp16"] = "float32",
    channels_last: bool = False,
    policy: Policy = DEFAULT,
    progress: Bar | None = None,
) -> Leakage:
    """Whether a sample's output depends on its batch mates, in training and in eval mode.

    Under mini-batch statistics the same samples are put into shuffled batches, and into batches
    that belong together: what that changes is the information that leaks inside a batch (Wu 2021,
    section 6). In eval mode nothing may leak at all. The model is left as it was.

    Args:
        model: any eager module, in any mode and on any device; wrappers are looked through.
        data: as for `measure`; held in memory. What the model was trained on tells most.
        by: what batches are grouped by: "class", "source" (the file's folder), "order" (of the
            files, or of the loader), or functions called with a batch that give one value for each
            of its samples. Default: class, source and order, as far as the data tell them. Layers
            are probed where it is grouped by class.
        values: sizes of the normalisation batch; default `group_size`, or `train_batch_size`.
        train_batch_size: the mini-batch size that the model was trained with, per device.
        group_size: samples that are normalised together inside a mini-batch (ghost batches).
        draws: shuffles, and random batches of each grouping, over which figures are averaged.
        forward, task, batch_size, seed, workers, device, dtype, channels_last, policy, progress:
            as for `measure`.
        samples: at most so many are read; None reads all.

    Returns:
        `sizes` (accuracy of each arrangement, its difference from shuffled batches with interval),
        `dependence` (eval mode), `probed` (by layer; None without scikit-learn), `findings`.

    Raises:
        ModelError: the model cannot be audited, or cannot take the data.
        InputError: the data are empty, do not fit into memory, or cannot be grouped as asked.

    Example:
        >>> found = bnaudit.leakage(model, dataset, train_batch_size=64)  # doctest: +SKIP
        >>> found.sizes[0].arrangement("class").accuracy.difference  # doctest: +SKIP
    """
    inner = unwrap(model)
    target = usable_device(device, "device") if device is not None else None
    where = target or device_of(inner)
    conditions = Conditions(
        forward or default_forward, where, target, autocast(dtype), channels_last, seed
    )
    check_positive("batch_size", batch_size)
    reader = reader_of(data, batch_size, samples, seed, workers, where)
    names, functions = _named(by)
    return leakage_with(
        inner,
        reader,
        conditions,
        Wanted(
            names,
            functions,
            tuple(values or ()),
            train_batch_size=train_batch_size,
            group_size=group_size,
            draws=draws,
            task=task,
        ),
        model_info=ModelInfo(type(inner).__qualname__, parameters=0, bn_layers={}),
        data_source=f"{type(data).__name__} object",
        policy=policy,
        progress=progress or no_bar,
    )


def _named(
    by: Sequence[str | By] | str | By | None,
) -> tuple[tuple[str, ...] | None, dict[str, By]]:
    """The names of what is grouped by, and the functions among them."""
    if by is None:
        return None, {}
    given = [by] if isinstance(by, str) or callable(by) else list(by)
    functions: dict[str, By] = {}
    names: list[str] = []
    for one in given:
        name = one if isinstance(one, str) else getattr(one, "__name__", type(one).__name__)
        if isinstance(one, str):
            if ":" in one:
                functions[one] = load_factory(one, option="by")
        else:
            if name in functions:
                raise InputError(
                    f"by has two functions called {name}: give them names of their own"
                )
            functions[name] = one
        names.append(name)
    return tuple(names), functions
