"""`gate`: an Audit held against limits and a baseline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnaudit.config import GateSettings
from bnaudit.config.keywords import gate_settings
from bnaudit.errors import InputError
from bnaudit.findings.changes import changes_between
from bnaudit.findings.gate.ignores import Ignores
from bnaudit.findings.gate.judge import accepting, judge_gate
from bnaudit.findings.gate.reconsider import reconsider
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.report.files import read_results
from bnaudit.results import Audit, Changes, Gate, Side

WRITE_ONE = "write one with --write-baseline, which accepts today's state"


@dataclass(frozen=True)
class Measured:
    """What was measured for the gate; without an Audit, the verdict on a model that has none.

    `base`: the Audit of the checkpoint before it.
    """

    audit: Audit | None = None
    base: Audit | None = None
    verdict: Gate | None = None


def gate(
    audit: Audit | str | os.PathLike[str],
    *,
    baseline: Audit | str | os.PathLike[str] | None = None,
    settings: GateSettings | None = None,
    policy: Policy = DEFAULT,
    **thresholds: Any,
) -> Gate:
    """Judge an Audit: pass, fail or inconclusive, and the checks that it rests on.

    Without a baseline a finding of `settings.fail_on` or graver fails, and so does a figure that
    exceeds a limit of the settings beyond its noise. With one, only what got worse does: a figure
    beyond `settings.tolerance` and beyond the noise of both measurements, family-wise over all that
    is compared, and what is found in the stored state and was not before.

    `audit`, `baseline`: Audits, or where they were written (an audit.json, or its folder); without
    `baseline` that of the settings is taken. `settings`: those of the table [gate], or some of
    them as `thresholds`, such as `max_layer_esm=0.2`. `policy`: the findings that are wanted, and
    their thresholds; those that rest on figures are concluded anew by it, on both sides.

    Raises `InputError` for files that are no Audits, for a baseline of another network, for
    settings that name codes which do not exist, and for a base checkpoint, which only the command
    can measure.
    """
    if settings is not None and thresholds:
        raise InputError(f"give {', '.join(thresholds)} in the settings, or no settings")
    settings = settings or gate_settings(thresholds)
    taken = baseline_of(baseline, settings)
    return judged(*_taken(audit), taken, settings, policy.checked())


def judged(
    audit: Audit,
    source: str,
    baseline: tuple[Audit, str] | None,
    settings: GateSettings,
    policy: Policy,
) -> Gate:
    """`gate` with what it compares in hand: each Audit, and what it is called."""
    audit = reconsider(audit, policy)
    subject = Side.of(audit, source)
    if baseline is None:
        return judge_gate(audit, settings, policy, subject=subject)
    before = reconsider(baseline[0], policy)
    ignores = Ignores(settings, audit.layers)
    changes = changes_between(
        before,
        audit,
        before_source=baseline[1],
        after_source=source,
        not_in_total={layer.name for layer in audit.layers if ignores.everything(layer.name)},
    )
    _check_network(baseline[1], before, audit, changes)
    return judge_gate(audit, settings, policy, subject=subject, changes=changes)


def accepted(audit: Audit, source: str, settings: GateSettings, policy: Policy) -> Gate:
    """The verdict on an Audit that becomes the baseline: what it finds is accepted."""
    audit = reconsider(audit, policy)
    return accepting(audit, settings, subject=Side.of(audit, source))


def _check_network(baseline_source: str, before: Audit, audit: Audit, changes: Changes) -> None:
    """Raises `InputError` for a baseline of another network."""
    if (before.audited or audit.audited) and not changes.layers:
        raise InputError(
            f"baseline {baseline_source}: shares no BatchNorm layer with {audit.model.source}: "
            f"it is of another network; {WRITE_ONE}"
        )


def baseline_of(
    baseline: Audit | str | os.PathLike[str] | None, settings: GateSettings
) -> tuple[Audit, str] | None:
    """The baseline that is given, or that of the settings, and what it is called."""
    if settings.base_checkpoint is not None:
        raise InputError(
            "base_checkpoint is for the command bnaudit gate: measure the earlier model on the "
            "same data, and give its Audit as the baseline"
        )
    against = settings.baseline if baseline is None else baseline
    if against is None or isinstance(against, Audit):
        return None if against is None else _taken(against)
    return read_baseline(Path(against)), str(against)


def check_settings(settings: GateSettings) -> None:
    """Raises `InputError` for codes that do not exist: before anything is measured."""
    Ignores(settings, ())


def read_baseline(path: Path) -> Audit:
    """The Audit to compare with. Raises `InputError` that says how to make one."""
    if not os.path.lexists(path):
        raise InputError(f"baseline {path}: no such file; {WRITE_ONE}")
    return read_results(path)


def _taken(audit: Audit | str | os.PathLike[str]) -> tuple[Audit, str]:
    if isinstance(audit, Audit):
        return audit, audit.model.checkpoint or audit.model.source
    return read_results(Path(audit)), str(audit)
