"""bnaudit: diagnoses and repairs the statistics of BatchNorm layers.

The Python API is the verbs: `bnaudit.measure(model, data)`, `bnaudit.recalibrate(model, data)`,
`bnaudit.inspect(path)`, `bnaudit.gate(audit)`, `bnaudit.compare(before, after)`, and for tests
`bnaudit.testing.assert_healthy(model, data)`. The toolbox: `bnaudit.sweep_batch_size(model, data)`
and the other sweeps, `bnaudit.domains(model, {"day": data, …})`, `bnaudit.apply_domain`,
`bnaudit.leakage(model, data)`, `bnaudit.advise(audit)`, and layers and conversions for training in
`bnaudit.nn`. They are imported when first used, so that `import bnaudit` and `bnaudit --help` load
nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnaudit._version import __version__

if TYPE_CHECKING:
    from bnaudit import nn
    from bnaudit.config import GateSettings
    from bnaudit.findings.policy import Policy
    from bnaudit.results import Audit, Changes, Finding, Gate
    from bnaudit.results.inspection import Inspection
    from bnaudit.verbs.advise import advise
    from bnaudit.verbs.apply_domain import apply_domain
    from bnaudit.verbs.compare import compare
    from bnaudit.verbs.domains import domains
    from bnaudit.verbs.gate import gate
    from bnaudit.verbs.inspect import inspect
    from bnaudit.verbs.leakage import leakage
    from bnaudit.verbs.measure import measure
    from bnaudit.verbs.recalibrate import recalibrate
    from bnaudit.verbs.recalibration import Recalibration
    from bnaudit.verbs.sweep_batch_size import sweep_batch_size
    from bnaudit.verbs.sweep_example_weight import sweep_example_weight
    from bnaudit.verbs.sweep_momentum import sweep_momentum
    from bnaudit.verbs.sweep_prior import sweep_prior
    from bnaudit.verbs.sweep_samples import sweep_samples

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
    "advise",
    "apply_domain",
    "compare",
    "domains",
    "gate",
    "inspect",
    "leakage",
    "measure",
    "nn",
    "recalibrate",
    "sweep_batch_size",
    "sweep_example_weight",
    "sweep_momentum",
    "sweep_prior",
    "sweep_samples",
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
    "advise": "bnaudit.verbs.advise",
    "apply_domain": "bnaudit.verbs.apply_domain",
    "compare": "bnaudit.verbs.compare",
    "domains": "bnaudit.verbs.domains",
    "gate": "bnaudit.verbs.gate",
    "inspect": "bnaudit.verbs.inspect",
    "leakage": "bnaudit.verbs.leakage",
    "measure": "bnaudit.verbs.measure",
    "recalibrate": "bnaudit.verbs.recalibrate",
    "sweep_batch_size": "bnaudit.verbs.sweep_batch_size",
    "sweep_example_weight": "bnaudit.verbs.sweep_example_weight",
    "sweep_momentum": "bnaudit.verbs.sweep_momentum",
    "sweep_prior": "bnaudit.verbs.sweep_prior",
    "sweep_samples": "bnaudit.verbs.sweep_samples",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "nn":
        return importlib.import_module("bnaudit.nn")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bnaudit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
