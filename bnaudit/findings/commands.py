"""The commands that findings give: what the user ran, with another verb."""

from __future__ import annotations

import shlex

from bnaudit.results import Audit

IN_PYTHON = "bnaudit.recalibrate(model, calibration_data, verify=heldout_data)"


def recalibrate(audit: Audit) -> str:
    """Recalibrate the checkpoint on the data that were measured."""
    request = audit.request
    if request is None:
        return IN_PYTHON
    words = ("recalibrate", request.checkpoint, *request.model, *request.data, *request.how)
    return shlex.join(("bnaudit", *words))


def recalibrate_on_training_data(audit: Audit) -> str:
    """Recalibrate the checkpoint on its training data."""
    request = audit.request
    if request is None or not request.train_data:
        return recalibrate(audit)
    words = ("recalibrate", request.checkpoint, *request.model, *request.train_data, *request.how)
    return shlex.join(("bnaudit", *words))


def measure_again(audit: Audit, *options: str) -> str | None:
    """Measure the same with other options."""
    request = audit.request
    if request is None:
        return None
    names = {"--data": "--train-data", "--data-arg": "--train-data-arg"}
    trained = (names.get(word, word) for word in request.train_data)
    what = (*request.model, *request.data, *trained, *request.how, *request.measuring)
    return shlex.join(("bnaudit", "measure", request.checkpoint, *what, *options))
