"""What the verbs find, as data: dataclasses <-> JSON <-> DataFrame. Nothing here imports torch."""

from bnaudit.results.audit import (
    SCHEMA,
    Attribution,
    Audit,
    DataInfo,
    ModelInfo,
    NetworkAudit,
    Score,
    Verdict,
)
from bnaudit.results.channels import ChannelTable
from bnaudit.results.findings import SEVERITIES, Finding, Severity
from bnaudit.results.layers import CallSite, Estimate, LayerAudit, Status, VarianceRatio
from bnaudit.results.preprocessing import Candidate, Preprocessing
from bnaudit.results.recalibration import (
    NOISE_ENOUGH,
    Change,
    Decision,
    Level,
    MemoryEstimate,
    Method,
    Recalibrated,
    RecalibratedLayer,
    Share,
    Verification,
)

__all__ = [
    "NOISE_ENOUGH",
    "SCHEMA",
    "SEVERITIES",
    "Attribution",
    "Audit",
    "CallSite",
    "Candidate",
    "Change",
    "ChannelTable",
    "DataInfo",
    "Decision",
    "Estimate",
    "Finding",
    "LayerAudit",
    "Level",
    "MemoryEstimate",
    "Method",
    "ModelInfo",
    "NetworkAudit",
    "Preprocessing",
    "Recalibrated",
    "RecalibratedLayer",
    "Score",
    "Severity",
    "Share",
    "Status",
    "VarianceRatio",
    "Verdict",
    "Verification",
]
