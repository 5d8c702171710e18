"""An Inspection in one line, for one of several files."""

from __future__ import annotations

from collections.abc import Sequence

from bnaudit.results.findings import SEVERITIES, Finding
from bnaudit.results.inspection import Inspection


def line(inspection: Inspection) -> str:
    """`ckpt.pth: 20 layers: error BN001; warning BN012, BN016`, the gravest first."""
    return f"{inspection.file.path}: {_layers(inspection)}: {codes(inspection.findings)}"


def codes(findings: Sequence[Finding]) -> str:
    """The codes by severity, each once; "no findings" where there are none."""
    by_severity = (
        (severity, dict.fromkeys(x.code for x in findings if x.severity == severity))
        for severity in SEVERITIES
    )
    parts = [f"{severity} {', '.join(found)}" for severity, found in by_severity if found]
    return "; ".join(parts) or "no findings"


def _layers(inspection: Inspection) -> str:
    count, lacking = len(inspection.layers), len(inspection.without_statistics)
    text = f"{count} layer{'s' * (count != 1)}" if count or lacking else "no BatchNorm layers"
    return f"{text}, {lacking} without statistics" if lacking else text
