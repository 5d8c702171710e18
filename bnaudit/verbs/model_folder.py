"""What the folder of a model brings besides: its weights, and how images are prepared."""

from __future__ import annotations

from bnaudit.config import PATH_SCHEMES, Settings
from bnaudit.targets.hugging_face import folder_of, has_processor, weights_in


def completed(settings: Settings) -> Settings:
    """The settings, with what `--model hf:DIR` implies where they do not say otherwise.

    The checkpoint is DIR's weights. The transform is `hf:DIR` where DIR says how images are
    prepared, for data that bnaudit reads itself: those of a factory prepare their own, and are
    given a transform only where one is named. Nothing is read, and what is missing stays so.
    """
    folder = folder_of(settings.model)
    if folder is None:
        return settings
    found: dict[str, object] = {}
    if settings.checkpoint is None:
        found["checkpoint"] = weights_in(folder)
    if settings.transform is None and _reads_images(settings) and has_processor(folder):
        found["transform"] = settings.model
    return settings.model_copy(update=found)


def prepares_itself(data: str) -> bool:
    """Whether a spec of data names a factory, which gives images prepared."""
    return data.partition(":")[0] not in PATH_SCHEMES


def _reads_images(settings: Settings) -> bool:
    specs = (settings.data, settings.train_data, settings.verify, *settings.domain.values())
    return any(spec is not None and not prepares_itself(spec) for spec in specs)
