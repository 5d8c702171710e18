"""`recalibrate`: new population statistics for a model, proven on data that took no part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.utils.data import Dataset

from bnaudit.config.defaults import CALIBRATION_SAMPLES
from bnaudit.engine.layers import find_layers
from bnaudit.engine.memory import parse_size
from bnaudit.engine.ranks import TIMEOUT, joined
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import InputError
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results import Method, ModelInfo
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.calibration import Choice
from bnaudit.verbs.in_step import of_first_rank
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE
from bnaudit.verbs.recalibration import Limits, Recalibration, recalibrate_with
from bnaudit.verbs.running import conditions_for
from bnaudit.verbs.samples import check_positive
from bnaudit.verbs.sources import Source, reader_of

DEFAULT_SAMPLES = CALIBRATION_SAMPLES
"""How many calibration samples the command line draws unless told otherwise."""


def recalibrate(
    model: nn.Module,
    data: Dataset[Any] | Iterable[Any],
    *,
    verify: Dataset[Any] | Iterable[Any] | None = None,
    verify_split: float | None = None,
    method: Method = "exact",
    momentum: float | None = None,
    prior: float = 0.0,
    layers: str | Sequence[str] = (),
    above: float | None = None,
    include_frozen: bool = False,
    max_memory: int | str | None = None,
    max_loss: float = 0.5,
    force: bool = False,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    task: Literal["auto", "classification", "other"] = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    samples: int | None = None,
    verify_samples: int | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: Literal["float32", "bf16", "fp16"] = "float32",
    channels_last: bool = False,
    policy: Policy = DEFAULT,
    progress: Bar | None = None,
    say: Callable[[str], None] | None = None,
    ranks: Literal["all", "alone"] = "all",
    rank_timeout: float = TIMEOUT,
) -> Recalibration:
    """Recalibrate the BatchNorm statistics of `model` on `data`, and verify them.

    The new statistics are written into the model where the verification accepts them, or where
    there is none; `result.revert()` puts the old ones back. Everything else stays as it was.

    Args:
        model: any eager module, in any mode and on any device; wrappers are looked through.
        data: calibration data: a map-style Dataset, or any iterable of batches, as for `measure`.
            Labels are not needed.
        verify: data that took no part, labelled if possible: they decide. Samples whose content is
            among the calibration data are left out.
        verify_split: instead, the share of `data` that is kept for verification.
        method: "exact" (all batches advance together; one pass), "sequential" (the same, layer by
            layer; no extra memory), "precise" (Wu & Johnson 2021) or "ema" (the framework's rule).
        momentum: of "ema"; default: each layer's own.
        prior: mixes in the old statistics as if they came from so many samples (Schneider 2020).
        layers: globs or /regexes/ of the layers that may change; default all.
        above: only layers whose own output shift exceeds this.
        include_frozen: recalibrate frozen layers as well.
        max_memory: bytes, or "8GB", for the activations that "exact" holds at once; default 70% of
            what is free. Where they do not fit, a subset is taken if `samples` is a number, and
            "sequential" runs if it is None.
        max_loss: percentage points of accuracy that may be lost for certain (95%).
        force: use the new statistics whatever the verification says, and recalibrate even on data
            that are preprocessed wrongly.
        samples, verify_samples: at most so many are read; None reads all.
        forward, task, batch_size, seed, workers, device, dtype, channels_last: as for `measure`.
        policy: whether wrong preprocessing (BN301) is looked for, and its thresholds.
        progress: called as progress(what, total, unit), gives a context of `advance(done)`.
        say: called with a line about what is going on.
        ranks, rank_timeout: as for `measure`. Where the statistics are accepted, all ranks have
            the same ones in every layer: those that did not change are the first rank's.

    Returns:
        The Recalibration: `result.report`, `result.decision`, `result.applied`, `result.revert()`.

    Raises:
        ModelError: the model cannot be recalibrated, or cannot take the data.
        NonFiniteError: an activation is NaN or infinite; names the layer and the batch.
        InputError: the data or the arguments do not fit, or the data are preprocessed wrongly.
        RankError: another rank failed, or is gone.

    Example:
        >>> result = bnaudit.recalibrate(model, loader, verify=heldout)  # doctest: +SKIP
        >>> result.decision.sentence, result.applied  # doctest: +SKIP
    """
    inner = unwrap(model)
    with joined(ranks, rank_timeout) as together:
        _check_arguments(method, momentum, prior, above, max_memory, max_loss)
        check_positive("batch_size", batch_size)
        _check_verification(data, verify, verify_split, verify_samples)
        limit = parse_size(str(max_memory), "max_memory") if max_memory is not None else None
        patterns = (layers,) if isinstance(layers, str) else tuple(layers)
        conditions = conditions_for(inner, forward, device, dtype, channels_last, seed, together)
        where = conditions.device
        made = reader_of(data, batch_size, samples, seed, workers, where, together)
        calibration, verification = Source(made, f"{type(data).__name__} object"), None
        if verify is not None:
            other = reader_of(verify, batch_size, verify_samples, seed, workers, where, together)
            verification = Source(other, f"{type(verify).__name__} object")
        elif verify_split is not None:
            calibration, verification = calibration.split(verify_split, verify_samples)
        result = recalibrate_with(
            model,
            calibration,
            verification,
            conditions,
            Choice(method, momentum, prior, above, limit, all_samples=samples is None),
            Limits(patterns, include_frozen, max_loss / 100, force, policy.checked()),
            model_info=ModelInfo(type(inner).__qualname__, parameters=0, bn_layers={}),
            task=task,
            progress=progress if progress is not None and together.is_first else no_bar,
            say=say if say is not None and together.is_first else _say_nothing,
        )
        if result.decision.use:
            result.apply(of_first_rank(find_layers(inner), together))
    return result


def _check_verification(
    data: object, verify: object, verify_split: float | None, verify_samples: int | None
) -> None:
    """Raises `InputError` for what excludes each other."""
    if verify is not None and verify_split is not None:
        raise InputError("give verify or verify_split, not both")
    if verify is data:
        raise InputError("verify is the calibration data: give others, or verify_split")
    if verify_samples is not None and verify is None and verify_split is None:
        raise InputError("verify_samples needs verify or verify_split")


def _check_arguments(
    method: str,
    momentum: float | None,
    prior: float,
    above: float | None,
    max_memory: int | str | None,
    max_loss: float,
) -> None:
    """Raises `InputError` for what cannot be meant."""
    if method not in get_args(Method):
        raise InputError(f"method is {method!r}: give one of {', '.join(get_args(Method))}")
    if momentum is not None and method != "ema":
        raise InputError(f'momentum is for method "ema", not {method!r}')
    if momentum is not None and not 0 < momentum <= 1:
        raise InputError(f"momentum is {momentum}: give a number above 0, and at most 1")
    for name, value in (("prior", prior), ("above", above), ("max_loss", max_loss)):
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{name} is {value}: give a number that is not negative")
    if isinstance(max_memory, int):
        check_positive("max_memory", max_memory)


def _say_nothing(line: str) -> None:
    pass
