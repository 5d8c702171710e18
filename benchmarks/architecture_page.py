"""The outcomes of many architectures -> the page `docs/architectures.md`."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

from architecture_outcome import Outcome, Run, Stage
from architecture_trial import (
    ATTRIBUTED_LAYERS,
    ATTRIBUTED_MILLIONS,
    BATCH_SIZES,
    RESIDUAL,
    SIDES,
    SIDES_TO_BUILD_FOR,
    TOO_LARGE,
)

FAILED: dict[Stage, str] = {
    "look": "cannot be built",
    "build": "cannot be built",
    "plain": "no plain forward",
    "measure": "`measure`",
    "exact": "`exact`",
}

AGAIN = """
    With `--continue` a run that was stopped goes on; with larger limits, it tries what they kept
    out. Smaller ones first, then `--continue` with larger ones, is a way to have a page early.
    `--only GLOB` tries some and prints; `--workers N` tries so many at a time."""

NAMED = 4
"""So many models are named beside a reason; of the others the number is given."""


def versions(library: str) -> str:
    """Of all that an outcome depends on, as one phrase."""
    packages = ("bnaudit", library, "torch")
    known = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    return ", ".join([*known, f"Python {platform.python_version()}"])


@dataclass(frozen=True)
class Counts:
    """How many of some architectures came how far; `residual` is the largest one after `exact`."""

    models: int
    with_batchnorm: int
    too_large: int
    ran: int
    measured: int
    exact: int
    passed: int
    residual: float | None

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Counts:
        """Those of `outcomes`."""
        some = list(outcomes)
        return cls(
            models=len(some),
            with_batchnorm=sum(one.bn_layers > 0 for one in some),
            too_large=sum(_too_large(one) for one in some),
            ran=sum(one.ran for one in some),
            measured=sum(one.measured for one in some),
            exact=sum(one.exact for one in some),
            passed=sum(one.measured and one.exact for one in some),
            residual=max((one.residual for one in some if one.residual is not None), default=None),
        )

    def cells(self) -> str:
        """From `with_batchnorm` on, as the cells of a row."""
        residual = "" if self.residual is None else f"{self.residual:.1e}"
        counts = (self.with_batchnorm, self.too_large, self.ran, self.measured, self.exact)
        return " | ".join([*(f"{count:,}" for count in counts), residual])


def _too_large(one: Outcome) -> bool:
    return any(failure.reason == TOO_LARGE for failure in one.failures)


def page(run: Run, outcomes: Sequence[Outcome], command: str) -> str:
    """The whole page, as Markdown. `command` makes it again."""
    total = Counts.of(outcomes)
    share = f"{total.passed / total.ran:.1%}" if total.ran else "none"
    parts = [
        "# Architectures",
        _asked(run, total, share),
        _families(run, outcomes),
        _rest(run, outcomes),
        _notes(run, outcomes),
        _how(run, outcomes),
        f"## Again\n\n    {command}\n\n{_filled(AGAIN)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _asked(run: Run, total: Counts, share: str) -> str:
    asked = f"""
        Every architecture of {run.library}, with random weights: is there BatchNorm, does a plain
        forward in eval mode run on a few small images, and can `bnaudit.measure` and
        `bnaudit.recalibrate(method="exact")` do their work on it? This page is written by
        `benchmarks/architectures.py`."""
    rows = {
        "looked at": f"{total.models:,}",
        "with BatchNorm": f"{total.with_batchnorm:,}",
        f"not tried: more than {run.millions:g} million parameters": f"{total.too_large:,}",
        "a plain forward ran": f"{total.ran:,}",
        "`measure` passed": f"{total.measured:,}",
        "`exact` passed": f"{total.exact:,}",
        "both passed": f"{total.passed:,} ({share} of those that ran)",
    }
    table = [f"| {what} | {count} |" for what, count in rows.items()]
    passes = f"""
        `measure` passes where every BatchNorm layer that the plain forward reaches is audited with
        finite figures, and the model gives bit for bit the same outputs afterwards. `exact` passes
        where all batches advanced together (lockstep), all those layers have new statistics, and
        the largest ESM that is left in any of them on the calibration data, the residual, is at
        most {RESIDUAL:g}."""
    head = ["| | models |", "| --- | --- |"]
    return "\n".join([_filled(asked), "", *head, *table, "", _filled(passes)])


def _families(run: Run, outcomes: Sequence[Outcome]) -> str:
    families = _by_family(run, outcomes)
    rows = [
        f"| {family} | {counts.models:,} | {counts.cells()} |"
        for family, members in sorted(families.items())
        if (counts := Counts.of(members)).with_batchnorm
    ]
    without = [m for m in families.values() if not any(one.bn_layers for one in m)]
    if without:
        counts = Counts.of(one for members in without for one in members)
        rows.append(f"| {len(without)} others | {counts.models:,} | {counts.cells()} |")
    total = Counts.of(outcomes)
    rows.append(f"| **all** | {total.models:,} | {total.cells()} |")
    columns = ("family", "models", "with BatchNorm", "too large", "forward", "measure", "exact")
    head = " | ".join(["", *columns, "largest residual", ""]).strip()
    return "\n".join(["## Families", "", head, "| --- |" + " --- |" * len(columns), *rows])


def _by_family(run: Run, outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """By the module that defines them, without the path that all share."""
    families: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        families[one.family.removeprefix(f"{run.library}.models.")].append(one)
    return families


def _rest(run: Run, outcomes: Sequence[Outcome]) -> str:
    """The reasons of those that did not pass, one line for each family, stage and reason."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for family, members in sorted(_by_family(run, outcomes).items()):
        for one in members:
            for failure in () if _too_large(one) else one.failures:
                groups[family, FAILED[failure.stage], failure.reason].append(one.name)
    if not groups:
        return "## The rest\n\nThere is none: all others that have BatchNorm ran, and passed."
    lines = [
        f"- {family or 'unknown'}, {_some(names)}: {stage}: {reason}"
        for (family, stage, reason), names in groups.items()
    ]
    return "\n".join(["## The rest", "", *lines])


def _notes(run: Run, outcomes: Sequence[Outcome]) -> str:
    """What was noted of those that passed."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for family, members in sorted(_by_family(run, outcomes).items()):
        for one in members:
            for note in one.notes:
                groups[family, note].append(one.name)
    lines = [f"- {family}, {_some(names)}: {note}" for (family, note), names in groups.items()]
    return "\n".join(["## Noted by `exact`", "", *lines]) if lines else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:NAMED]) + more


def _how(run: Run, outcomes: Sequence[Outcome]) -> str:
    ran = [one for one in outcomes if one.ran]
    sizes = Counter((one.side, one.built_for is not None) for one in ran)
    where = "; ".join(
        f"{side} pixels{', built for them' if built else ''}: {count}"
        for (side, built), count in sorted(sizes.items())
    )
    attributed = sum(one.attributed for one in ran)
    batches = " and ".join(str(size) for size in BATCH_SIZES)
    inputs = f"""
        Batches of {batches} images of seeded normal noise. Sizes are tried in this order, and the
        first on which the forward runs with finite outputs is taken: {_listed(SIDES)} pixels a
        side; for a model made for one size, the model built for {_listed(SIDES_TO_BUILD_FOR)}
        (`img_size`); the model's own size. No architecture is treated apart. So they ran: {where}.
        """
    work = f"""
        Of the {len(ran):,} models the {attributed:,} with at most {ATTRIBUTED_LAYERS} BatchNorm
        layers and {ATTRIBUTED_MILLIONS} million parameters are measured with own and inherited
        shift (`attribute={BATCH_SIZES[0]}`), the others without (`attribute="none"`). Mistakes in
        the preprocessing of noise are not looked for (BN301). The forwards reach
        {sum(one.reached for one in ran):,} of {sum(one.bn_layers for one in ran):,} BatchNorm
        layers; a layer that runs in training only is not reached."""
    limits = f"""
        Each architecture has a process of its own, one thread, {run.seconds:g} s of processor time
        and {run.gigabytes:g} GB of memory. All together took
        {sum(one.seconds for one in outcomes) / 60:.0f} minutes of processor time, the search for
        BatchNorm included. {run.versions}."""
    return "\n\n".join(["## How", *(_filled(text) for text in (inputs, work, limits))])


def _filled(text: str) -> str:
    return fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(str(size) for size in sizes)
