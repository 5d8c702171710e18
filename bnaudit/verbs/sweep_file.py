"""Sweeps of what settings name: a checkpoint and data in, a Sweep out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bnaudit.config import Settings
from bnaudit.config.defaults import CALIBRATION_SAMPLES, SAMPLES
from bnaudit.results.sweep import Kind, Sweep
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.held_out import held_out_of
from bnaudit.verbs.request import verification_of
from bnaudit.verbs.sweep_batch_size import sweep_batch_size_with
from bnaudit.verbs.sweep_example_weight import sweep_example_weight_with
from bnaudit.verbs.sweep_momentum import sweep_momentum_with
from bnaudit.verbs.sweep_prior import sweep_prior_with
from bnaudit.verbs.sweep_samples import DRAWS, sweep_samples_with
from bnaudit.verbs.sweep_values import checked_draws
from bnaudit.verbs.workbench import Workbench, prepared_workbench


def sweep_file(
    kind: Kind,
    settings: Settings,
    values: Sequence[float] | None,
    *,
    draws: int | None,
    progress: Bar,
    say: Callable[[str], None],
) -> Sweep:
    """The sweep of this kind over `values` (None: its own), for what the settings name.

    `draws`: of `samples` alone. Raises `InputError` that names the option at fault.
    """
    drawn = checked_draws(DRAWS if draws is None else draws)
    if kind in ("batch-size", "example-weight"):
        bench = prepared_workbench(settings, SAMPLES, progress, say)
        if kind == "batch-size":
            return sweep_batch_size_with(bench, values, settings.train_batch_size)
        return sweep_example_weight_with(bench, values)
    bench = _verifying(prepared_workbench(settings, CALIBRATION_SAMPLES, progress, say), settings)
    calibration, held_out = held_out_of(bench, settings)
    if kind == "samples":
        return sweep_samples_with(bench, calibration, held_out, values, drawn)
    if kind == "prior":
        return sweep_prior_with(bench, calibration, held_out, values)
    return sweep_momentum_with(bench, calibration, held_out, values, settings.train_batch_size)


def _verifying(bench: Workbench, settings: Settings) -> Workbench:
    """With the held-out data in the request: what its findings tell to run recalibrates."""
    if bench.request is None:
        return bench
    how = (*bench.request.how, *verification_of(settings))
    return replace(bench, request=replace(bench.request, how=how))
