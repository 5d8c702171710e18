"""What the verbs find, as data: dataclasses <-> JSON <-> DataFrame. Nothing here imports torch."""

from bnaudit.results.audit import (
    SCHEMA,
    Attribution,
    Audit,
    DataInfo,
    ModelInfo,
    NetworkAudit,
    Request,
    Score,
    TrainedOn,
    TrainedOnLayer,
    Verdict,
)
from bnaudit.results.change import Change, Share
from bnaudit.results.channels import ChannelTable
from bnaudit.results.data_checks import BatchOrder, DataChecks, OtherEps, PaddedLayer, Spread
from bnaudit.results.findings import SEVERITIES, Finding, Severity
from bnaudit.results.layers import (
    CallSite,
    Estimate,
    InitialShare,
    LayerAudit,
    Status,
    VarianceRatio,
)
from bnaudit.results.preprocessing import Candidate, Preprocessing
from bnaudit.results.recalibration import (
    NOISE_ENOUGH,
    Decision,
    Level,
    MemoryEstimate,
    Method,
    Recalibrated,
    RecalibratedLayer,
    Verification,
)

__all__ = [
    "NOISE_ENOUGH",
    "SCHEMA",
    "SEVERITIES",
    "Attribution",
    "Audit",
    "BatchOrder",
    "CallSite",
    "Candidate",
    "Change",
    "ChannelTable",
    "DataChecks",
    "DataInfo",
    "Decision",
    "Estimate",
    "Finding",
    "InitialShare",
    "LayerAudit",
    "Level",
    "MemoryEstimate",
    "Method",
    "ModelInfo",
    "NetworkAudit",
    "OtherEps",
    "PaddedLayer",
    "Preprocessing",
    "Recalibrated",
    "RecalibratedLayer",
    "Request",
    "Score",
    "Severity",
    "Share",
    "Spread",
    "Status",
    "TrainedOn",
    "TrainedOnLayer",
    "VarianceRatio",
    "Verdict",
    "Verification",
]
