"""What a comparison of domains leaves to be used: a bank of statistics, or checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from bnaudit.checkpoints.bank import Bank, bank_dtype
from bnaudit.checkpoints.patch import patch_checkpoint
from bnaudit.checkpoints.target import check_target
from bnaudit.engine.layers import BNLayer
from bnaudit.errors import InputError
from bnaudit.report.files import check_folder
from bnaudit.results.documents import finite
from bnaudit.results.domains import POOLED, Domains
from bnaudit.verbs.domains_comparison import Compared
from bnaudit.verbs.weights import Weights, by_name_in_file


def bank_of(made: Compared) -> Bank:
    """The statistics of all domains, and the pooled ones, by layer."""
    report = made.report
    layers = next(iter(made.statistics.values()))
    samples = {one.name: one.calibration.samples for one in report.domains}
    return Bank(
        statistics={
            whose: {layer.name: _stored(layer, *pair) for layer, pair in one.items()}
            for whose, one in made.statistics.items()
        },
        eps={layer.name: layer.eps for layer in layers if layer.eps is not None},
        kept=tuple(layer.name for layer in report.kept),
        samples=samples | ({POOLED: report.pooled_samples} if POOLED in made.statistics else {}),
        model=report.model.source,
        checkpoint_sha256=report.model.checkpoint_sha256,
    )


def _stored(layer: BNLayer, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    dtype = bank_dtype(layer.estimated[1].dtype)
    return mean.to(dtype), var.to(dtype)


def checkpoint_targets(checkpoint: Path, folder: Path, names: list[str]) -> dict[str, Path]:
    """The file of each domain in `folder`: the checkpoint's name with the domain's in it."""
    return {name: folder / f"{checkpoint.stem}.{name}{checkpoint.suffix}" for name in names}


def check_checkpoints(
    checkpoint: Path, folder: Path, targets: Mapping[str, Path], *, overwrite: bool
) -> None:
    """Raise `InputError` where they could not be written, before any work."""
    check_folder(folder, "--write-checkpoints")
    if not folder.exists():
        return
    for target in targets.values():
        check_target(checkpoint, target, overwrite=overwrite)


def write_checkpoints(
    made: Compared,
    weights: Weights,
    checkpoint: Path,
    targets: Mapping[str, Path],
    *,
    trust_pickle: bool,
    overwrite: bool,
) -> tuple[list[Path], tuple[str, ...]]:
    """One copy of the checkpoint for each domain, in which only the statistics differ; and notes.

    Each is written whole or not at all, with its sidecar, as `recalibrate` does. The notes say
    what else differs, and which layers the checkpoint has nothing of.
    """
    written, notes = [], dict[str, None]()
    for whose, target in targets.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--write-checkpoints {target.parent}: cannot be made: {error}"
            ) from error
        new = [((one.name, *one.aliases), pair) for one, pair in made.statistics[whose].items()]
        values, absent = by_name_in_file(new, weights)
        patched = patch_checkpoint(
            checkpoint,
            target,
            values,
            key=weights.key,
            provenance=_provenance(made.report, whose),
            trust_pickle=trust_pickle,
            overwrite=overwrite,
            source_sha256=made.report.model.checkpoint_sha256,
        )
        written.append(patched.target)
        notes |= dict.fromkeys((*absent, *patched.notes))
    return written, tuple(notes)


def _provenance(report: Domains, whose: str) -> dict[str, Any]:
    """Which domain's statistics these are, and what the comparison said."""
    document: dict[str, Any] = finite(
        {
            "domain": whose,
            "versions": report.versions,
            "domains": [asdict(one) for one in report.domains],
            "worth": asdict(report.worth),
            "cells": [asdict(one) for one in report.cells if one.statistics == whose],
        }
    )
    return document
