"""Whether settings work: what they name is loaded or measured once, and thrown away."""

from __future__ import annotations

from collections.abc import Callable

from bnaudit.checkpoints.load import load_checkpoint
from bnaudit.config import Settings
from bnaudit.errors import BnauditError, one_line
from bnaudit.targets.hugging_face import folder_of
from bnaudit.targets.models import build_model
from bnaudit.verbs.bars import no_bar
from bnaudit.verbs.folder_weights import load_folder_weights
from bnaudit.verbs.measure_prepared import measure_prepared
from bnaudit.verbs.policy import policy_of
from bnaudit.verbs.prepare import prepare

SAMPLES = 8


def why_not_measured(settings: Settings) -> str | None:
    """What `bnaudit measure` says on these settings and eight samples; None where it works."""
    few = settings.model_copy(update={"samples": SAMPLES, "attribute": "none"})
    return _why_not(lambda: measure_prepared(prepare(few, SAMPLES), few, policy_of(few), no_bar))


def why_not_loaded(settings: Settings) -> str | None:
    """Why the weights do not go into the model; None where they do."""
    model, checkpoint = settings.model, settings.checkpoint
    assert model is not None
    assert checkpoint is not None
    load = load_checkpoint if folder_of(model) is None else load_folder_weights
    return _why_not(
        lambda: load(
            build_model(model, settings.model_arg), checkpoint, key=settings.checkpoint_key
        )
    )


def _why_not(work: Callable[[], object]) -> str | None:
    try:
        work()
    except BnauditError as error:
        return str(error)
    except Exception as error:  # of somebody else's model or data
        return one_line(error)
    return None
