"""Writes `REPRODUCTION.md` from the figures of the seeds: every number and every verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image

from bnaudit.report.plots import STYLE
from reproduce.claim import Claim, Outcome, Scale, Table, outcomes_of, verdict_of
from reproduce.runs import SeedRun
from reproduce.significance import LEVEL, WANTED_POWER, interval_of

PLOTS = "reproduction"
LEAST_SEEDS = 5
DOTS_PER_INCH = 110
COLOURS = 128


@dataclass(frozen=True)
class Circumstances:
    """What the page says of the run as a whole: times in seconds, versions by name.

    `wall_seconds`: None where part of the figures were kept from another run.
    """

    command: str
    date: str
    processor_seconds: float
    wall_seconds: float | None
    jobs: int
    versions: dict[str, str]


def write_page(
    path: Path, claims: Sequence[tuple[Claim, Sequence[SeedRun]]], about: Circumstances
) -> None:
    """Write the page, and the plots into the folder `reproduction` beside it."""
    (path.parent / PLOTS).mkdir(parents=True, exist_ok=True)
    judged = [
        (claim, runs, outcomes_of(claim, [run.figures for run in runs])) for claim, runs in claims
    ]
    parts = [_head(about), _summary(judged)]
    for claim, runs, outcomes in judged:
        _draw(claim, [run.figures for run in runs], path.parent / PLOTS / f"{claim.key}.png")
        parts.append(claim_section(claim, runs, outcomes))
    path.write_text("\n\n".join(parts) + "\n")


def claim_section(claim: Claim, runs: Sequence[SeedRun], outcomes: Sequence[Outcome]) -> str:
    """One claim: the paper, the recipe, the tables, the tests, the plot, the verdict."""
    figures = [run.figures for run in runs]
    seeds = [run.seed for run in runs]
    parts = [
        f"## {claim.key}. {claim.title}",
        f"**Verdict: {verdict_of(claim, outcomes)}.**{_against(outcomes)}",
        f"What the paper says: {claim.says}",
        f"Recipe: {claim.recipe} Seeds {_seeds(seeds)}; "
        f"{sum(run.seconds for run in runs) / len(runs):.0f} s of processor time a seed.",
        *(_table(table, figures) for table in claim.tables),
        _tests(claim, outcomes),
        f"![claim {claim.key}]({PLOTS}/{claim.key}.png)",
    ]
    if claim.remark is not None:
        parts.append(claim.remark(figures))
    return "\n\n".join(parts)


def _against(outcomes: Sequence[Outcome]) -> str:
    keys = [outcome.hypothesis.key for outcome in outcomes if outcome.opposite]
    return f" Significant in the other direction: {', '.join(keys)}." if keys else ""


def _head(about: Circumstances) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    wall = ""
    if about.wall_seconds is not None:
        wall = f", {about.wall_seconds / 60:.0f} minutes with {about.jobs} processes"
    return f"""# The claims of the papers, tried on the digits

Written by `{about.command}` on {about.date}: {about.processor_seconds / 60:.0f} minutes of \
processor time{wall}. {versions}. No figure of the reported seeds and no verdict \
is typed.

Huang 2022 is arXiv:2203.10778, Wu 2021 arXiv:2105.07576, Summers 2020 arXiv:1906.03548. The \
papers train on ImageNet and CIFAR; here are scikit-learn's 8×8 digits, 900 for training, 400 for \
calibration and choices, 497 for the test, and networks of 26 to 43 thousand parameters. Figures \
come from `bnaudit.measure`, `bnaudit.recalibrate` and `bnaudit.sweep_example_weight`, the \
remedies from `bnaudit.nn`.

How to read it:

- A seed draws the initial weights and the order of the samples; the images are the same for all. \
Intervals are 95% over seeds (Student's t): they say what another training run would give, not \
what other images would.
- The hypotheses stood in the scripts before the reported seeds were run; recipes were tried out \
on seeds from 100 on, which are not reported (claim d also on seeds 0 to 9, see there). Primary \
hypotheses decide the verdict: *reproduced* if all of them hold.
- A difference is paired by seed and written so that the claim wants it above 0 (a factor above \
1). It holds if it is and p < {LEVEL} after Holm's correction over all tests of the claim. *Sign*: \
in how many seeds the difference is above and below 0. *Sign-flip p* is the exact permutation \
test's, uncorrected, which needs no normal distribution.
- *Power* is at the level that Holm asks of the smallest p-value ({LEVEL} / number of tests), for \
a true effect as large as the observed one; a restatement of p. *Detectable* is what planning \
needs: the effect that these many seeds find with {WANTED_POWER:.0%} power at that level. For an \
equivalence, power is for no difference at all, and *detectable* is the margin."""


def _summary(judged: Sequence[tuple[Claim, Sequence[SeedRun], Sequence[Outcome]]]) -> str:
    lines = ["| claim | verdict | primary effects | Holm p |", "| --- | --- | --- | --- |"]
    for claim, _, outcomes in judged:
        primary = outcomes[: len(claim.primary)]
        effects = "; ".join(
            f"{one.hypothesis.key} {_effect(one.hypothesis.scale, one.test.interval.mean)}"
            for one in primary
        )
        p_values = "; ".join(p_text(one.adjusted) for one in primary)
        title = f"[{claim.key}. {claim.title}](#{_anchor(f'{claim.key}. {claim.title}')})"
        lines.append(f"| {title} | {verdict_of(claim, outcomes)} | {effects} | {p_values} |")
    return "\n".join(lines)


def _table(table: Table, figures: Sequence[Any]) -> str:
    headings = [
        heading + (f" ({scale.unit})" if scale.unit else "") for heading, scale in table.columns
    ]
    lines = [
        f"{table.title}{table.about}, mean (95% interval over {len(figures)} seeds):",
        "",
        "| | " + " | ".join(headings) + " |",
        "| --- |" + " --- |" * len(headings),
    ]
    for row in table.rows:
        cells = []
        for cell, (_, scale) in zip(row.cells, table.columns, strict=True):
            if cell is None:
                cells.append("–")
                continue
            over = interval_of([cell(one) for one in figures])
            cells.append(
                f"{scale.text(over.mean)} ({scale.text(over.low)} to {scale.text(over.high)})"
            )
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _tests(claim: Claim, outcomes: Sequence[Outcome]) -> str:
    lines = [
        f"{len(outcomes)} tests, {len(claim.primary)} of them primary:",
        "",
        "| | hypothesis | test | difference (95%) | sign | p | Holm p | sign-flip p | power "
        "| detectable | holds |",
        "| --- |" + " --- |" * 10,
    ]
    for place, outcome in enumerate(outcomes):
        hypothesis, test = outcome.hypothesis, outcome.test
        scale, over = hypothesis.scale, test.interval
        rank = "primary" if place < len(claim.primary) else "secondary"
        flipped = "–" if test.sign_flip is None else p_text(test.sign_flip)
        cells = [
            f"{hypothesis.key}, {rank}",
            hypothesis.says,
            hypothesis.test_name,
            f"{_effect(scale, over.mean)} ({scale.text(over.low)} to {scale.text(over.high)})",
            f"{test.positive} +, {test.negative} −",
            p_text(test.p_value),
            p_text(outcome.adjusted),
            flipped,
            f"{test.power:.2f}",
            _effect(scale, test.detectable),
            "yes" if outcome.holds else "no",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def p_text(p_value: float) -> str:
    """`0.031`, `4e-06`."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.0e}"


def _effect(scale: Scale, value: float) -> str:
    return f"{scale.text(value)} {scale.unit}".strip()


def _seeds(seeds: Sequence[int]) -> str:
    whole = list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if list(seeds) == whole else ", ".join(map(str, seeds))


def _anchor(heading: str) -> str:
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _draw(claim: Claim, figures: Sequence[Any], path: Path) -> None:
    drawn = BytesIO()
    with mpl.rc_context(STYLE):
        claim.plot(figures).savefig(drawn, format="png", dpi=DOTS_PER_INCH)
    # a palette instead of true colours: a third of the size in the repository
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(path, optimize=True)
