"""The commands that findings give: what the user ran, with another verb."""

from __future__ import annotations

import shlex

from bnaudit.results import Audit, Request

IN_PYTHON = "bnaudit.recalibrate(model, calibration_data, verify=heldout_data)"


def recalibrate(audit: Audit) -> str:
    """Recalibrate the checkpoint on the data that were measured."""
    return recalibrate_of(audit.request)


def recalibrate_of(request: Request | None) -> str:
    """Recalibrate what a run measured, on its data; None: it was measured from Python."""
    if request is None:
        return IN_PYTHON
    return _recalibrate(request, request.data)


def recalibrate_on_training_data(audit: Audit) -> str:
    """Recalibrate the checkpoint on its training data."""
    request = audit.request
    if request is None or not request.train_data:
        return recalibrate_of(request)
    return _recalibrate(request, request.train_data)


def _recalibrate(request: Request, data: tuple[str, ...]) -> str:
    words = ("recalibrate", request.checkpoint, *request.model, *data, *request.how)
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
