"""The options of a run as words, for the commands that findings give."""

from __future__ import annotations

from bnaudit.config import Settings
from bnaudit.results import Request
from bnaudit.targets.factories import parse_args


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
            *_switch("--allow-mismatch", settings.allow_mismatch),
            *_switch("--trust-pickle", settings.trust_pickle),
        ),
        data=(*_option("--data", settings.data), *_pairs("--data-arg", settings.data_arg)),
        train_data=(
            *_option("--data", settings.train_data),
            *_pairs("--data-arg", settings.train_data_arg),
        ),
        how=(
            *_option("--transform", settings.transform),
            *_option("--forward", settings.forward),
            *_option("--batch-size", settings.batch_size),
            *_switch("--skip-bad", settings.skip_bad),
            *_switch("--channels-last", settings.channels_last),
            *_unless("--device", settings.device, "auto"),
            *_unless("--dtype", settings.dtype, "float32"),
            *_unless("--task", settings.task, "auto"),
            *_unless("--seed", str(settings.seed), "0"),
            *_unless("--workers", str(settings.workers), "auto"),
            *_unless("--decode", settings.decode, "cpu"),
            *_thresholds(settings.thresholds),
            *(word for code in settings.select for word in ("--select", code)),
            *(word for code in settings.ignore for word in ("--ignore", code)),
        ),
        measuring=(
            *_option("--train-batch-size", settings.train_batch_size),
            *_option("--compare", settings.compare),
        ),
    )


def verification_of(settings: Settings) -> tuple[str, ...]:
    """The options that name the held-out data of `recalibrate`, and of what shares them."""
    return (
        *_option("--verify", settings.verify),
        *_pairs("--verify-arg", settings.verify_arg),
        *_option("--verify-split", settings.verify_split),
        *_unless("--verify-samples", str(settings.verify_samples), "2000"),
    )


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, str(value))


def _thresholds(thresholds: dict[str, dict[str, float]]) -> tuple[str, ...]:
    return tuple(
        word
        for code, values in thresholds.items()
        for name, value in values.items()
        for word in ("--threshold", f"{code}.{name}={value:g}")
    )


def _switch(name: str, on: bool) -> tuple[str, ...]:
    return (name,) if on else ()


def _unless(name: str, value: str, default: str) -> tuple[str, ...]:
    return () if value == default else (name, value)


def _pairs(name: str, values: dict[str, object]) -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in (name, f"{key}={_text(value)}"))


def _text(value: object) -> str:
    """As it has to be written to be read as this value: the text "10" with quotes."""
    read = parse_args([f"value={value}"], option="")["value"]
    return str(value) if read == value and type(read) is type(value) else repr(value)
