"""`leakage` of what settings name: the verb as the command line runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bnaudit.config import Settings
from bnaudit.results.leakage import Leakage
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.leakage_found import leakage_with
from bnaudit.verbs.leakage_wanted import DRAWS, SAMPLES, wanted_of
from bnaudit.verbs.workbench import any_prepared_workbench


def leakage_of(
    settings: Settings,
    *,
    by: Sequence[str] | None,
    values: Sequence[float] | None,
    group_size: int | None,
    draws: int | None,
    progress: Bar,
    say: Callable[[str], None],
) -> Leakage:
    """What leaks in the checkpoint that the settings name, on their data.

    `by`: as on the command line; what has a colon names a function. Raises `InputError`.
    """
    drawn = DRAWS if draws is None else draws
    wanted = wanted_of(by or None, values, settings.train_batch_size, group_size, drawn)
    return leakage_with(any_prepared_workbench(settings, SAMPLES, progress, say), wanted)
