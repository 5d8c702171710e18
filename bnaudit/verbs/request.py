"""The options of a run as words, for the commands that findings give."""

from __future__ import annotations

from bnaudit.config import Settings
from bnaudit.results import Request


def request_of(settings: Settings) -> Request | None:
    """What a command on the same model and data needs; None without a checkpoint."""
    if settings.checkpoint is None:
        return None
    return Request(
        checkpoint=str(settings.checkpoint),
        model=(
            *_option("--model", settings.model),
            *_pairs("--model-arg", settings.model_arg),
            *_option("--checkpoint-key", settings.checkpoint_key),
        ),
        data=(*_option("--data", settings.data), *_pairs("--data-arg", settings.data_arg)),
        train_data=(
            *_option("--data", settings.train_data),
            *_pairs("--data-arg", settings.train_data_arg),
        ),
        how=(*_option("--transform", settings.transform), *_option("--forward", settings.forward)),
    )


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, str(value))


def _pairs(name: str, values: dict[str, object]) -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in (name, f"{key}={value}"))
