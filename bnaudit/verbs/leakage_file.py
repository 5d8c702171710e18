"""`leakage` of what settings name: the verb as the command line runs it."""

from __future__ import annotations

from collections.abc import Sequence

from bnaudit.config import Settings
from bnaudit.engine.wrappers import unwrap
from bnaudit.results.leakage import Leakage
from bnaudit.targets.factories import load_factory
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.leakage_found import DRAWS, SAMPLES, Wanted, leakage_with
from bnaudit.verbs.policy import policy_of
from bnaudit.verbs.prepare import prepare
from bnaudit.verbs.request import request_of


def leakage_of(
    settings: Settings,
    *,
    by: Sequence[str] | None,
    values: Sequence[int],
    group_size: int | None,
    draws: int | None,
    progress: Bar,
) -> Leakage:
    """What leaks in the checkpoint that the settings name, on their data.

    `by`: as on the command line; what has a colon names a function. Raises `InputError`.
    """
    policy = policy_of(settings)
    names = tuple(dict.fromkeys(by)) if by else None
    wanted = Wanted(
        names,
        {name: load_factory(name, option="--by") for name in names or () if ":" in name},
        tuple(values),
        train_batch_size=settings.train_batch_size,
        group_size=group_size,
        draws=DRAWS if draws is None else draws,
        task=settings.task,
    )
    parts = prepare(settings, SAMPLES)
    return leakage_with(
        unwrap(parts.model),
        parts.reader,
        parts.conditions,
        wanted,
        model_info=parts.model_info,
        data_source=parts.data_source,
        transform=settings.transform,
        policy=policy,
        request=request_of(settings),
        progress=progress,
    )
