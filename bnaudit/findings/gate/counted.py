"""Which findings count: grave enough, not ignored, and with a baseline new and borne out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from bnaudit.config import GateSettings
from bnaudit.errors import InputError
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.gate.ignores import Ignores
from bnaudit.findings.phrases import some_of
from bnaudit.results import SEVERITIES, Audit, Changes, Check, Finding, Waived

BASELINE = "baseline"
TOLERANCE = "tolerance"
SAME_WEIGHTS = "same weights"
ACCEPTED = "accepted"

THE_DATA = (
    "The checkpoint is that of the baseline: what changed are the data, or how they are prepared. "
    "Mend those; recalibrate only where the model is meant for data like these."
)

PREPROCESSING = "BN301"
"""It says what is wrong with the data already."""

NON_FINITE_OUTPUTS = "BN205"
"""The one finding on data that no chance decides: it needs no figure that got worse."""


@dataclass(frozen=True)
class Counted:
    """The checks of the findings that count, those that do not though grave enough, and the rest.

    Together they are all findings.
    """

    checks: tuple[Check, ...]
    waived: tuple[Waived, ...]
    others: tuple[Finding, ...]


def counted(
    findings: Sequence[Finding],
    settings: GateSettings,
    ignores: Ignores,
    changes: Changes | None = None,
    worse: Collection[str] = (),
    *,
    any_worse: bool = False,
) -> Counted:
    """Sort findings.

    With `changes` against a baseline, those that stood there are waived. One that rests on data is
    waived too unless a figure it rests on got worse beyond tolerance and noise: that of one of its
    layers, which are then among `worse`, or `any_worse` where it concerns no layers. Whether a
    figure lies just above or just below a threshold is chance; this is not. One about the stored
    state is waived where both sides are the same weights: a newer version found it, or other
    settings did.
    """
    checks, waived, others = [], [], []
    for finding in findings:
        left, setting = _left(finding, ignores)
        if not (_grave(finding, settings) and ignores.selects(finding.code)):
            others.append(finding)
            continue
        if left is not None and changes is not None:
            left, setting = _new(left, changes, worse, any_worse=any_worse)
        if left is None:
            waived.append(Waived(finding, setting))
        else:
            checks.append(_check(_of_the_data(left, changes)))
    return Counted(tuple(checks), tuple(waived), tuple(others))


def _grave(finding: Finding, settings: GateSettings) -> bool:
    if settings.fail_on == "nothing":
        return False
    return SEVERITIES.index(finding.severity) <= SEVERITIES.index(settings.fail_on)


def _left(finding: Finding, ignores: Ignores) -> tuple[Finding | None, str]:
    """The finding without the layers where it is ignored; None, and why, where nothing is left."""
    setting = ignores.code(finding.code)
    if setting is not None:
        return None, setting
    if not finding.layers:
        return finding, ""
    reasons = {layer: ignores.layer(layer, finding.code) for layer in finding.layers}
    layers = tuple(layer for layer, reason in reasons.items() if reason is None)
    left_out = [layer for layer, reason in reasons.items() if reason is not None]
    if not layers:
        return None, ", ".join(sorted({reason for reason in reasons.values() if reason}))
    if not left_out:
        return finding, ""
    sentence = f"{finding.sentence} The settings leave out {some_of(left_out)}."
    return replace(finding, layers=layers, sentence=sentence), ""


def _new(
    finding: Finding, changes: Changes, worse: Collection[str], *, any_worse: bool
) -> tuple[Finding | None, str]:
    """The finding with the layers where it is new and borne out."""
    gained = [new for new in changes.gained if new.code == finding.code]
    layers = {layer for new in gained for layer in new.layers}
    if not gained or (finding.layers and not layers & set(finding.layers)):
        return None, BASELINE
    of_data = _subject(finding.code) is Audit
    if not of_data and changes.same_weights:
        return None, SAME_WEIGHTS
    rests_on_data = of_data and finding.code != NON_FINITE_OUTPUTS
    if not finding.layers:
        return (None, TOLERANCE) if rests_on_data and not any_worse else (finding, "")
    if rests_on_data:
        new = {layer.name for layer in changes.layers if layer.output_shift is None}
        layers &= {*worse, *changes.added, *new}
    kept = tuple(layer for layer in finding.layers if layer in layers)
    return (replace(finding, layers=kept), "") if kept else (None, TOLERANCE)


def _of_the_data(finding: Finding, changes: Changes | None) -> Finding:
    """Where the weights are those of the baseline and the samples are not, the data are at fault,
    and recalibrating would fit the checkpoint to them."""
    if changes is None or not changes.same_weights or changes.paired:
        return finding
    if finding.code == PREPROCESSING or _subject(finding.code) is not Audit:
        return finding
    return replace(finding, remedy=THE_DATA, command=None)


def _subject(code: str) -> type | None:
    try:
        return find_rule(code).subject
    except InputError:  # of another version of the tool
        return None


def _check(finding: Finding) -> Check:
    return Check(
        kind="finding",
        name=finding.code,
        title=finding.name,
        outcome="fail",
        sentence=finding.sentence,
        severity=finding.severity,
        layers=finding.layers,
        remedy=finding.remedy,
        command=finding.command,
    )
