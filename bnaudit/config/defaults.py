"""Defaults of settings that depend on the verb, or on other settings: those have None."""

from __future__ import annotations

from bnaudit.config.settings import Settings

BATCH_SIZE = 32
"""Samples a forward."""

SAMPLES = 2000
"""So many are measured."""

CALIBRATION_SAMPLES = 1000
"""So many are recalibrated on."""

SPLIT = 0.5
"""The share of the data that verifies where nobody names verification data."""


def where_not_set(settings: Settings) -> dict[str, str]:
    """What holds where a setting is None, by its key, in words that a table has room for."""
    size = settings.batch_size or BATCH_SIZE
    return {
        "batch_size": f"{BATCH_SIZE}, or a loader's own",
        "train_batch_size": f"{size}, as batch_size",
        "samples": f"{SAMPLES}; recalibrate: {CALIBRATION_SAMPLES}",
        "transform": "RGB, divided by 255",
        "output": "bnaudit-results/NAME",
        "momentum": "the layers' own",
        "eps": "1e-05, or the model's",
        "max_memory": "70% of what is free",
        "verify_split": f"{SPLIT}",
    }
