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
from bnaudit.results.changes import (
    Changes,
    Difference,
    LayerChange,
    NetworkChange,
    Side,
    Uncompared,
)
from bnaudit.results.channels import ChannelTable
from bnaudit.results.data_checks import BatchOrder, DataChecks, OtherEps, PaddedLayer, Spread
from bnaudit.results.findings import SEVERITIES, Finding, Severity
from bnaudit.results.gate import OUTCOMES, Check, Gate, Outcome, Waived
from bnaudit.results.layers import (
    CallSite,
    Estimate,
    InitialShare,
    LayerAudit,
    Status,
    VarianceRatio,
)
from bnaudit.results.marks import Marks
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
from bnaudit.results.run_time import RunTime, Spent

__all__ = [
    "NOISE_ENOUGH",
    "OUTCOMES",
    "SCHEMA",
    "SEVERITIES",
    "Attribution",
    "Audit",
    "BatchOrder",
    "CallSite",
    "Candidate",
    "Change",
    "Changes",
    "ChannelTable",
    "Check",
    "DataChecks",
    "DataInfo",
    "Decision",
    "Difference",
    "Estimate",
    "Finding",
    "Gate",
    "InitialShare",
    "LayerAudit",
    "LayerChange",
    "Level",
    "Marks",
    "MemoryEstimate",
    "Method",
    "ModelInfo",
    "NetworkAudit",
    "NetworkChange",
    "OtherEps",
    "Outcome",
    "PaddedLayer",
    "Preprocessing",
    "Recalibrated",
    "RecalibratedLayer",
    "Request",
    "RunTime",
    "Score",
    "Severity",
    "Share",
    "Side",
    "Spent",
    "Spread",
    "Status",
    "TrainedOn",
    "TrainedOnLayer",
    "Uncompared",
    "VarianceRatio",
    "Verdict",
    "Verification",
    "Waived",
]
