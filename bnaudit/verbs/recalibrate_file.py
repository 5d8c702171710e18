"""`recalibrate` for files: a checkpoint and data named by settings in, a verified copy out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bnaudit.checkpoints.patch import patch_checkpoint
from bnaudit.checkpoints.target import check_target
from bnaudit.config import Settings
from bnaudit.config.defaults import SPLIT
from bnaudit.engine.memory import parse_size
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.errors import InputError
from bnaudit.results import Recalibrated
from bnaudit.results.documents import finite
from bnaudit.targets.transforms import build_transform
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.calibration import Choice
from bnaudit.verbs.policy import policy_of
from bnaudit.verbs.prepare import (
    Prepared,
    open_other_data,
    prepare,
    reader_for,
)
from bnaudit.verbs.recalibrate import DEFAULT_SAMPLES
from bnaudit.verbs.recalibration import Limits, Recalibration, recalibrate_with
from bnaudit.verbs.sources import Source
from bnaudit.verbs.weights import Weights, by_name_in_file, dtypes_in_file


@dataclass(frozen=True)
class Outcome:
    """A recalibration and the file that came of it; `path` None: nothing was written.

    `in_place`: only the statistics' bytes differ from the checkpoint's; `notes` say what else does.
    """

    result: Recalibrated
    path: Path | None = None
    sidecar: Path | None = None
    in_place: bool = False
    notes: tuple[str, ...] = ()


def recalibrate_file(
    settings: Settings,
    target: Path,
    *,
    dry_run: bool,
    force: bool,
    overwrite: bool,
    progress: Bar,
    say: Callable[[str], None],
    ranks: Ranks = ALONE,
) -> Outcome:
    """Recalibrate the checkpoint that `settings` name, and write a copy to `target` if it is
    accepted. With `dry_run` nothing is written. Of several ranks the first one writes.

    Raises `InputError` for what cannot be read, used or written; before the work where it can.
    """
    checkpoint = settings.checkpoint
    if checkpoint is None:
        raise InputError("no checkpoint: name the file whose statistics are to be recalibrated")
    if not dry_run:
        ranks.from_first(lambda: check_target(checkpoint, target, overwrite=overwrite))
    max_memory = None
    if settings.max_memory is not None:
        max_memory = parse_size(str(settings.max_memory), "--max-memory")
    parts = prepare(settings, DEFAULT_SAMPLES, ranks)
    calibration, verification = _sources(parts, settings, say)
    choice = Choice(
        settings.method,
        settings.momentum,
        settings.prior,
        settings.above,
        max_memory,
        all_samples=settings.samples == "all",
    )
    policy = policy_of(settings)
    limits = Limits(
        tuple(settings.layers), settings.include_frozen, settings.max_loss / 100, force, policy
    )
    made = recalibrate_with(
        parts.model,
        calibration,
        verification,
        parts.conditions,
        choice,
        limits,
        model_info=parts.model_info,
        task=settings.task,
        progress=progress,
        say=say,
        stored=dtypes_in_file(parts.weights),
    )
    if dry_run or not made.decision.use:
        return Outcome(made.report)
    weights = parts.weights
    assert weights is not None
    return ranks.from_first(
        lambda: _written(made, settings, parts, weights, target, overwrite=overwrite)
    )


def _sources(
    parts: Prepared, settings: Settings, say: Callable[[str], None]
) -> tuple[Source, Source]:
    """The calibration and the verification data; without any of their own, a part of the same."""
    samples = None if settings.verify_samples == "all" else settings.verify_samples
    mine = Source(parts.reader, parts.data_source, parts.transform)
    same = (settings.verify, settings.verify_arg) == (settings.data, settings.data_arg)
    if same:
        raise InputError(
            f"--verify {settings.verify}: these are the calibration data; give others, or leave "
            "--verify out: then a part of --data is kept for it (--verify-split)"
        )
    if settings.verify is None:
        share = settings.verify_split or SPLIT
        if settings.verify_split is None:
            say(f"no --verify: {share:.0%} of the data are kept for the verification")
        return mine.split(share, samples)
    transform = build_transform(settings.transform)
    target = open_other_data("--verify", settings.verify, settings.verify_arg, transform)
    said = f"--verify {settings.verify}"
    reader = reader_for(target, settings, parts.conditions, samples, said)
    return mine, Source(reader, target.description, parts.transform)


def _written(
    made: Recalibration,
    settings: Settings,
    parts: Prepared,
    weights: Weights,
    target: Path,
    *,
    overwrite: bool,
) -> Outcome:
    assert settings.checkpoint is not None
    names = {layer.name: (layer.name, *layer.aliases) for layer in made.report.layers}
    new = [(names[name], pair) for name, pair in made.statistics.items()]
    values, notes = by_name_in_file(new, weights)
    report = replace(made.report, notes=(*made.report.notes, *notes))
    patched = patch_checkpoint(
        settings.checkpoint,
        target,
        values,
        key=weights.key,
        provenance=_provenance(report),
        trust_pickle=settings.trust_pickle,
        overwrite=overwrite,
        source_sha256=parts.model_info.checkpoint_sha256,
    )
    return Outcome(report, patched.target, patched.sidecar, patched.in_place, patched.notes)


def _provenance(report: Recalibrated) -> dict[str, Any]:
    """How the statistics were made and what the verification said; layers without intervals."""
    document: dict[str, Any] = finite(asdict(report))
    return document
