"""`sweep prior`: new statistics mixed with the checkpoint's own, at several strengths.

Schneider et al. 2020 (arXiv:2006.16971): with few samples of the target, the source's statistics
count as N samples, weight n/(N + n) on the new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from torch import nn

from bnaudit.findings.conclude import conclude
from bnaudit.results.sweep import Conclusion, Sweep, SweepData
from bnaudit.verbs.best_value import Best, best_value
from bnaudit.verbs.calibration_pool import calibration_pool
from bnaudit.verbs.held_out import NewStatistics, Tried, held_out_sources, try_statistics
from bnaudit.verbs.scores import scores_of
from bnaudit.verbs.sources import Source
from bnaudit.verbs.sweep_values import PRIORS, checked_values
from bnaudit.verbs.swept_point import swept_point
from bnaudit.verbs.workbench import Data, RunOptions, Workbench, workbench


def sweep_prior(
    model: nn.Module,
    data: Data,
    *,
    values: Sequence[float] | None = None,
    verify: Data | None = None,
    verify_split: float | None = None,
    verify_samples: int | None = None,
    **options: Unpack[RunOptions],
) -> Sweep:
    """Recalibrate on the same n samples with priors of several strengths N, and try the result.

    The statistics of each layer are mixed as `bnaudit.recalibrate(prior=N)` mixes them: before the
    layers behind it see what comes of it. The best N is chosen on one half of the labelled held-out
    samples, by the loss, and its gain over exact statistics (N = 0) is told on the other half. The
    residual is the ESM of the layers on the held-out data: a prior is a shift that is wanted, so it
    grows with N. The model is left as it was.

    Args:
        model: as for `bnaudit.measure`.
        data: the calibration data, of which `samples` are read: a prior is for few of them.
        values: strengths, 0 or more; default 0, 8, 16, … 512.
        verify: held-out data; without labels nothing is chosen.
        verify_split: instead, the share of `data` that is held out (default a half).
        verify_samples: at most so many held-out samples are read.
        options: see `RunOptions`.

    Returns:
        The Sweep: `sweep.points`, `sweep.conclusion("best")`, `sweep.to_frame()`.

    Raises:
        InputError: strengths that are negative, among others as `bnaudit.recalibrate`.

    Example:
        >>> sweep = bnaudit.sweep_prior(model, few, verify=test, samples=16)  # doctest: +SKIP
        >>> sweep.conclusion("best").value  # doctest: +SKIP
    """
    bench = workbench(model, data, **options)
    sources = held_out_sources(bench, verify, verify_split, verify_samples, options)
    return sweep_prior_with(bench, *sources, values)


def sweep_prior_with(
    bench: Workbench, calibration: Source, held_out: Source, values: Sequence[float] | None
) -> Sweep:
    """The same for a workbench, with data in two parts."""
    strengths = checked_values("prior", PRIORS if values is None else values)
    mixed = tuple(strength for strength in strengths if strength > 0)
    subject = bench.subject
    with subject.conditions.entered(subject.model):
        pool = calibration_pool(bench, calibration, bench.say)
        found: list[NewStatistics] = []
        with bench.progress("recalibrating", len(mixed) + 1, "priors") as advance:
            for strength in (0.0, *mixed):
                found.append(pool.exact(prior=strength))
                advance(1)
        tried = try_statistics(bench, held_out, found, pool.hashes, "trying them on held-out data")
    places = {strength: place for place, strength in enumerate((0.0, *mixed))}
    by_strength = {strength: tried.outcomes[places[strength]] for strength in strengths}
    exact = tried.outcomes[0]
    best = best_value(exact, {0.0: exact, **by_strength}, bench.seed)
    sweep = Sweep(
        "prior",
        **bench.header(),
        data=(SweepData("held-out", tried.info, scores_of(tried.estimates), scores_of(exact)),),
        points=tuple(
            swept_point(strength, places[strength], tried, exact, bench.seed)
            for strength in strengths
        ),
        conclusions=(_best(best, strengths, pool.samples),) if best is not None else (),
        layers=tried.layers,
        calibration=pool.info,
        notes=(*pool.plan.notes, *tried.notes, *_notes(tried)),
    )
    return replace(sweep, findings=conclude([sweep], bench.policy))


def _notes(tried: Tried) -> list[str]:
    return [] if tried.labelled else ["no labels: which prior is best cannot be told"]


def _best(best: Best, strengths: Sequence[float], samples: int) -> Conclusion:
    """Exact statistics compete as N = 0, whether it was asked for or not."""
    if best.value == 0:
        sentence = (
            "None of the priors that were tried has a lower loss than the new statistics alone, "
            f"of {samples:,} calibration samples, on the half of the held-out data that chooses: "
            "none is shown to help."
        )
    else:
        sentence = (
            f"The loss is lowest with a prior of {best.value:g} samples beside {samples:,} of "
            f"calibration (weight {samples / (best.value + samples):.2f} on the new statistics), "
            "chosen on one half of the held-out data; "
            f"{best.on_the_other_half('no prior')}"
        )
    return Conclusion(
        "best",
        sentence,
        best.value,
        tuple(value for value in best.candidates if value in strengths),
        best.accuracy,
        best.loss,
        significant=best.value > 0 and best.significant,
    )
