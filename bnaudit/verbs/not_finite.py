"""The gate's verdict on a model of which there is no Audit: its activations are not finite."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from bnaudit.config import GateSettings
from bnaudit.engine.layers import find_layers
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import NonFiniteError
from bnaudit.findings import commands
from bnaudit.findings.conclude import conclude
from bnaudit.findings.gate.judge import not_finite
from bnaudit.findings.policy import Policy
from bnaudit.results import Gate, ModelInfo, Request, Side
from bnaudit.verbs.stored_state import state_of_model
from bnaudit.verbs.weights import Weights


def verdict_without_figures(
    error: NonFiniteError,
    model: nn.Module,
    info: ModelInfo,
    data_source: str,
    settings: GateSettings,
    policy: Policy,
    request: Request | None = None,
    weights: Weights | None = None,
) -> Gate:
    """Failed, with the layer where it begins and what the stored state says of the reason.

    `request`: the options, for the commands of findings; `weights`: what the checkpoint had.
    """
    name = info.checkpoint or info.source
    subject = Side(
        source=name,
        model=info.source,
        checkpoint=info.checkpoint,
        checkpoint_sha256=info.checkpoint_sha256,
        data=data_source,
        samples=0,
        seed=None,
    )
    state = state_of_model(find_layers(unwrap(model)), name, weights)
    state = replace(state, recalibrate=commands.recalibrate_of(request))
    findings = conclude((state,), policy)
    first = error.__cause__ if isinstance(error.__cause__, NonFiniteError) else error
    return not_finite(str(first), error.layer, settings, subject, findings)
