"""For the tests of a project that has models with BatchNorm layers.

def test_the_statistics_fit_the_data():
    bnaudit.testing.assert_healthy(model, loader, max_layer_esm=0.2)
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn
from torch.utils.data import Dataset

from bnaudit.config.keywords import gate_settings
from bnaudit.errors import NonFiniteError
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.report.gate import print_gate
from bnaudit.report.neutral import made_neutral
from bnaudit.results import Audit, Gate, ModelInfo
from bnaudit.verbs.gate import baseline_of, check_settings, judged
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE, measure
from bnaudit.verbs.not_finite import verdict_without_figures

_WIDTH = 100


def assert_healthy(
    model: nn.Module,
    data: Dataset[Any] | Iterable[Any],
    *,
    baseline: Audit | str | os.PathLike[str] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    task: Literal["auto", "classification", "other"] = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    train_batch_size: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str | torch.device | None = None,
    attribute: int | Literal["all", "none"] = "none",
    policy: Policy = DEFAULT,
    **thresholds: Any,
) -> Gate:
    """Measure the model and fail with the findings where the gate does.

    `model`, `data` and how they are measured are as in `bnaudit.measure`; where the shift comes
    from is left out unless `attribute` asks for it. `baseline`: an Audit, or where one was
    written: only what got worse fails. `thresholds`: the settings of the table `[gate]`, such as
    `max_layer_esm=0.2`, `min_accuracy=0.9`, `fail_on="error"`, `ignore=["BN107"]`,
    `inconclusive="pass"`.

    Returns the verdict. The model is left as it was.

    Raises:
        AssertionError: it fails, or the data are too few to tell; the message is the findings.
        InputError: a threshold that does not exist, data that are empty, a baseline that cannot be
            read or is of another network.
        ModelError: the model cannot be audited, or cannot take the data.
    """
    __tracebackhide__ = True
    settings = gate_settings(thresholds)
    check_settings(settings)
    before = baseline_of(baseline, settings)
    policy = policy.checked()
    try:
        audit = measure(
            model,
            data,
            forward=forward,
            task=task,
            batch_size=batch_size,
            train_batch_size=train_batch_size,
            samples=samples,
            seed=seed,
            workers=workers,
            device=device,
            attribute=attribute,
            policy=policy,
        )
        verdict = judged(audit, audit.model.source, before, settings, policy)
    except NonFiniteError as error:
        info = ModelInfo(type(model).__qualname__, 0, {})
        name = f"{type(data).__name__} object"
        verdict = verdict_without_figures(error, model, info, name, settings, policy)
    if verdict.exit_code:
        raise AssertionError(_text(verdict))
    return verdict


def _text(verdict: Gate) -> str:
    text = io.StringIO()
    console = made_neutral(Console(file=text, width=_WIDTH, highlight=False, no_color=True))
    print_gate(verdict, console, all_layers=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip()
