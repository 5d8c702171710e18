"""bnaudit: diagnoses and repairs the statistics of BatchNorm layers.

The Python API is the verbs: `bnaudit.measure(model, data)`, `bnaudit.recalibrate(model, data)`,
`bnaudit.inspect(path)`, `bnaudit.gate(audit)`, `bnaudit.compare(before, after)`, and for tests
`bnaudit.testing.assert_healthy(model, data)`. They are imported when first used, so that
`import bnaudit` and `bnaudit --help` load nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnaudit._version import __version__

if TYPE_CHECKING:
    from bnaudit.config import GateSettings
    from bnaudit.findings.policy import Policy
    from bnaudit.results import Audit, Changes, Finding, Gate
    from bnaudit.results.inspection import Inspection
    from bnaudit.verbs.compare import compare
    from bnaudit.verbs.gate import gate
    from bnaudit.verbs.inspect import inspect
    from bnaudit.verbs.measure import measure
    from bnaudit.verbs.recalibrate import recalibrate
    from bnaudit.verbs.recalibration import Recalibration

__all__ = [
    "Audit",
    "Changes",
    "Finding",
    "Gate",
    "GateSettings",
    "Inspection",
    "Policy",
    "Recalibration",
    "__version__",
    "compare",
    "gate",
    "inspect",
    "measure",
    "recalibrate",
]

_LAZY = {
    "Audit": "bnaudit.results",
    "Changes": "bnaudit.results",
    "Finding": "bnaudit.results",
    "Gate": "bnaudit.results",
    "GateSettings": "bnaudit.config",
    "Inspection": "bnaudit.results.inspection",
    "Policy": "bnaudit.findings.policy",
    "Recalibration": "bnaudit.verbs.recalibration",
    "compare": "bnaudit.verbs.compare",
    "gate": "bnaudit.verbs.gate",
    "inspect": "bnaudit.verbs.inspect",
    "measure": "bnaudit.verbs.measure",
    "recalibrate": "bnaudit.verbs.recalibrate",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bnaudit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
