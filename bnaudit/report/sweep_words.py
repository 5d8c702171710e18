"""What each kind of sweep calls its value, its conditions and its shift."""

from __future__ import annotations

from dataclasses import dataclass

from bnaudit.results.sweep import Kind, Role, Sweep, SweepData


@dataclass(frozen=True)
class Words:
    """`value`: the head of a column; `axis`: of an axis; `shift`: what the shift column holds.

    `shift_axis`: the same on an axis; `legend`: the same in a sentence; `exact`: what the exact
    statistics are of.
    """

    value: str
    axis: str
    shift: str
    shift_axis: str
    legend: str
    exact: str


_RESIDUAL = "residual ESM on the held-out data, root mean square over layers"

WORDS: dict[Kind, Words] = {
    "batch-size": Words(
        "batch",
        "mini-batch size of the statistics",
        "disc",
        "layer discrepancy, RMS\n(standard deviations)",
        "discrepancy of mini-batch statistics from the estimates, root mean square over layers",
        "exact statistics",
    ),
    "samples": Words(
        "samples",
        "calibration samples",
        "ESM",
        "residual ESM, RMS\n(standard deviations)",
        _RESIDUAL,
        "exact statistics of all samples",
    ),
    "prior": Words(
        "prior",
        "strength N of the prior, in samples",
        "ESM",
        "residual ESM, RMS\n(standard deviations)",
        _RESIDUAL,
        "exact statistics, no prior",
    ),
    "example-weight": Words(
        "weight",
        "weight of an example's own statistics",
        "shift",
        "shift",
        "",
        "exact statistics",
    ),
    "momentum": Words(
        "momentum",
        "momentum of the moving average",
        "ESM",
        "residual ESM, RMS\n(standard deviations)",
        _RESIDUAL,
        "exact statistics",
    ),
}

TITLES: dict[Kind, str] = {
    "batch-size": "Mini-batch statistics over the batch size",
    "samples": "Recalibration over the number of samples",
    "prior": "Recalibration over the strength of the prior",
    "example-weight": "Inference example weighing over the weight",
    "momentum": "The moving average over its momentum",
}

ROLES: dict[Role, str] = {"held-out": "held-out data", "train": "training data"}


def value_text(kind: Kind, value: float) -> str:
    """A value as a table shows it: `1,024`, `0.05`."""
    whole = kind in ("batch-size", "samples", "prior") and value == int(value)
    return f"{int(value):,}" if whole else f"{value:g}"


def heading(sweep: Sweep, data: SweepData) -> str:
    """Of the table of one set of data."""
    samples = f"{data.estimates.samples:,} samples"
    return f"{TITLES[sweep.kind]}: {ROLES[data.role]}, {samples}"


def legend(sweep: Sweep) -> str:
    """What the columns are, in one paragraph."""
    words = WORDS[sweep.kind]
    parts = []
    if any(point.draws > 1 for point in sweep.points):
        parts.append(
            "top-1, loss and ESM are means over draws, with 95% intervals over draws; those of "
            "differences hold the chance of the samples too"
        )
    if any(point.scores.agreement for point in sweep.points):
        parts.append("agree: share of samples with the same top-1 class as under the estimates")
    if any(point.accuracy_change for point in sweep.points):
        parts.append("from est., from exact: points of accuracy, paired, with 95% interval")
    if any(point.scores.relative_rms is not None for point in sweep.points):
        parts.append("rel. RMS: difference of the outputs from those under the estimates")
    if any(point.shift for point in sweep.points):
        parts.append(f"{words.shift}: {words.legend}, in standard deviations")
    if sweep.current is not None and sweep.kind in ("momentum", "batch-size"):
        parts.append(f"*: in force now ({value_text(sweep.kind, sweep.current)})")
    return "; ".join(parts) + "." if parts else ""
