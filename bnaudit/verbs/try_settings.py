"""Whether settings work: a measurement of a few samples, thrown away."""

from __future__ import annotations

from bnaudit.config import Settings
from bnaudit.errors import BnauditError, one_line
from bnaudit.verbs.bars import no_bar
from bnaudit.verbs.measure_prepared import measure_prepared
from bnaudit.verbs.policy import policy_of
from bnaudit.verbs.prepare import prepare

SAMPLES = 8


def why_not(settings: Settings) -> str | None:
    """What `bnaudit measure` says on these settings and eight samples; None where it works."""
    few = settings.model_copy(update={"samples": SAMPLES, "attribute": "none"})
    try:
        measure_prepared(prepare(few, SAMPLES), few, policy_of(few), no_bar)
    except BnauditError as error:
        return str(error)
    except Exception as error:  # of somebody else's model or data
        return one_line(error)
    return None
