"""What `bnaudit gate` does once its options are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from bnaudit.config import Settings
    from bnaudit.results import Audit, Gate
    from bnaudit.verbs.gate import Measured

DEFAULT_BASELINE = Path("bnaudit-baseline.json")


def is_audit(subject: Path) -> bool:
    """A document or a folder of results; anything else is a checkpoint."""
    from bnaudit.regular_files import is_folder

    return subject.suffix.lower() == ".json" or is_folder(subject)


def judge(
    settings: Settings, existing: Path | None, messages: Console
) -> tuple[Gate, Audit | None]:
    """The verdict on an existing Audit, or on the checkpoint, which is measured now; the Audit."""
    from bnaudit.errors import InputError
    from bnaudit.verbs.gate import judged, read_baseline
    from bnaudit.verbs.policy import policy_of

    policy, options = policy_of(settings), settings.gate
    if options.base_checkpoint is not None and existing is not None:
        raise InputError(
            f"--base-checkpoint is measured beside a checkpoint, and {existing} is an Audit: give "
            "the checkpoint, or --baseline"
        )
    against = options.baseline if options.base_checkpoint is None else None
    baseline = None if against is None else (read_baseline(against), str(against))
    measured, source = _figures(settings, existing, messages)
    if measured.audit is None:
        return _without_figures(measured), None
    if measured.base is not None:
        baseline = measured.base, str(options.base_checkpoint)
    return judged(measured.audit, source, baseline, options, policy), measured.audit


def accept(
    settings: Settings, existing: Path | None, messages: Console
) -> tuple[Gate, Audit | None]:
    """The verdict on today's state as the next baseline, and its Audit."""
    from bnaudit.errors import InputError
    from bnaudit.verbs.gate import accepted
    from bnaudit.verbs.policy import policy_of

    if settings.gate.base_checkpoint is not None:
        raise InputError("--write-baseline accepts today's state: leave --base-checkpoint out")
    measured, source = _figures(settings, existing, messages)
    if measured.audit is None:
        return _without_figures(measured), None
    return accepted(measured.audit, source, settings.gate, policy_of(settings)), measured.audit


def _figures(settings: Settings, existing: Path | None, messages: Console) -> tuple[Measured, str]:
    """What is judged, read or measured, and what it is called."""
    from bnaudit.cli import screen
    from bnaudit.report.files import read_results
    from bnaudit.verbs.gate import Measured, check_settings
    from bnaudit.verbs.policy import policy_of

    check_settings(settings.gate)
    if existing is not None:
        return Measured(read_results(existing)), str(existing)
    from bnaudit.verbs.gate_checkpoint import measure_for_gate

    progress, loading = partial(screen.progress, messages), partial(_loading, messages)
    measured = measure_for_gate(settings, policy_of(settings), progress, loading)
    return measured, str(settings.checkpoint or settings.model)


def _without_figures(measured: Measured) -> Gate:
    assert measured.verdict is not None
    return measured.verdict


def _loading(messages: Console, what: str) -> AbstractContextManager[object]:
    from bnaudit.cli import screen

    return messages.status(what) if messages.is_terminal else screen.quiet()


def baseline_to_write(settings: Settings, inputs: Sequence[Path]) -> Path:
    """Where today's state goes. Fails before the work where it cannot go there."""
    from bnaudit.report.baseline import check_baseline

    path = settings.gate.baseline or DEFAULT_BASELINE
    check_baseline(path, [*inputs, *outputs(settings)])
    return path


def outputs(settings: Settings) -> dict[Path, str]:
    """The files that `--output` asks for, and that option."""
    from bnaudit.report.gate_files import gate_results

    if settings.output is None:
        return {}
    return dict.fromkeys(gate_results(settings.output), f"--output {settings.output}")


def remove_outdated(settings: Settings) -> None:
    """Where there are no figures, those of an earlier run do not belong beside the verdict."""
    from bnaudit.report.files import remove_results

    if settings.output is not None:
        remove_results(settings.output)


def save_baseline(audit: Audit | None, verdict: Gate, path: Path, messages: Console) -> None:
    """Write the Audit as a baseline, and say what it accepts."""
    from bnaudit.cli import screen
    from bnaudit.report.baseline import write_baseline

    if audit is None:
        screen.say(messages, f"baseline not written: there are no figures to accept ({path})")
        return
    write_baseline(audit, path)
    count = sum(each.setting == "accepted" for each in verdict.waived)
    accepted = f"; it accepts {count} finding{'s' * (count != 1)}" if count else ""
    meaning = f"with --baseline {path} only what gets worse fails"
    screen.say(messages, f"baseline written to {path}{accepted}: {meaning}")


def save_results(verdict: Gate, audit: Audit | None, settings: Settings) -> list[Path]:
    """What `--output` asks for: the verdict, and the Audit where it does not stand there."""
    from bnaudit.report.files import write_results
    from bnaudit.report.gate_files import write_gate

    if settings.output is None:
        return []
    written = []
    if audit is not None:
        written = write_results(audit, settings.output, plots=settings.plots)
    return [*written, write_gate(verdict, settings.output)]


def tell_github(verdict: Gate, output_format: str) -> None:
    """GitHub shows one file on the page of the run; another one tells later steps the outcome."""
    if output_format != "github":
        return
    from bnaudit.report.github import append_outcome, append_summary

    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        append_summary(verdict, Path(summary))
    if output := os.environ.get("GITHUB_OUTPUT"):
        append_outcome(verdict, Path(output))
