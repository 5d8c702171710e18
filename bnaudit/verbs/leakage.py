"""`leakage`: does a sample's output depend on its batch mates? The Python API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import nn

from bnaudit.results.leakage import Leakage
from bnaudit.verbs.leakage_found import leakage_with
from bnaudit.verbs.leakage_pool import By
from bnaudit.verbs.leakage_wanted import DRAWS, SAMPLES, wanted_of
from bnaudit.verbs.workbench import Data, RunOptions, any_workbench


def leakage(
    model: nn.Module,
    data: Data,
    *,
    by: Sequence[str | By] | str | By | None = None,
    values: Sequence[int] | None = None,
    train_batch_size: int | None = None,
    group_size: int | None = None,
    draws: int = DRAWS,
    **options: Unpack[RunOptions],
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
        options: see `RunOptions`; `samples` is 1,000 unless given.

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
    wanted = wanted_of(by, values, train_batch_size, group_size, draws)
    options = {"samples": SAMPLES, **options}
    return leakage_with(any_workbench(model, data, **options), wanted)
