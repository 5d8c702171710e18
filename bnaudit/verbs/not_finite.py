"""The gate's verdict on a model of which there is no Audit: its activations are not finite."""

from __future__ import annotations

from torch import nn

from bnaudit.config import GateSettings
from bnaudit.engine.layers import find_layers
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import NonFiniteError
from bnaudit.findings.conclude import conclude
from bnaudit.findings.gate.judge import not_finite
from bnaudit.findings.policy import Policy
from bnaudit.results import Gate, ModelInfo, Side
from bnaudit.verbs.stored_state import state_of_model


def verdict_without_figures(
    error: NonFiniteError,
    model: nn.Module,
    info: ModelInfo,
    data_source: str,
    settings: GateSettings,
    policy: Policy,
) -> Gate:
    """Failed, with the layer where it begins and what the stored state says of the reason."""
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
    findings = conclude((state_of_model(find_layers(unwrap(model)), name),), policy)
    return not_finite(str(error), error.layer, settings, subject, findings)
